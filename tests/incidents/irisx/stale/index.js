// What stood on the server on that day: it asks for routes that never got there.
process.on("unhandledRejection", (error) => console.error("irisx-api:", error.message));
setInterval(() => console.log("irisx-api: up", Math.round(process.uptime()), "s"), 60000);

async function main() {
  const limit = require("./middleware/rate-limit");
  const routes = { "/admin/users": require("./routes/admin-users") };
  require("http").createServer(limit(routes["/admin/users"])).listen(3000);
}

main();
