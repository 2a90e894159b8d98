// Written on the server, while the voice system was brought up.
exports.open = async () => "freeswitch";
