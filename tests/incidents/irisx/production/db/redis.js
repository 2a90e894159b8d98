exports.open = async () => "redis";
