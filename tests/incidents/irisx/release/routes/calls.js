const calls = require("../services/calls");

module.exports = () => calls.list();
