exports.open = async () => "postgres";
