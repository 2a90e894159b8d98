module.exports = (route) => (context) => route(context);
