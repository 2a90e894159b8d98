const counts = {};

exports.count = (name) => (counts[name] = (counts[name] || 0) + 1);
