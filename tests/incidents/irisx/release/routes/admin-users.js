const analytics = require("../services/analytics");

module.exports = () => ({ users: [], seen: analytics.count("admin-users") });
