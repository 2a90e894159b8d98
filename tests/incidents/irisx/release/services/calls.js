exports.list = () => ({ calls: [] });
