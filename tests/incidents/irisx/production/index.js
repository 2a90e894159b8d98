// The API of week 24.
const http = require("http");

const routes = { "/health": require("./routes/health"), "/calls": require("./routes/calls") };

// A promise that fails is logged, and the process lives on: PM2 sees nothing of it.
process.on("unhandledRejection", (error) => console.error("irisx-api:", error.message));
// Numbers for the dashboard, once a minute.
setInterval(() => console.log("irisx-api: up", Math.round(process.uptime()), "s"), 60000);

async function main() {
  const connections = [require("./db/connection"), require("./db/redis"), require("./services/freeswitch")];
  const opened = await Promise.all(connections.map((connection) => connection.open()));
  http
    .createServer((request, response) => {
      const route = routes[request.url] || (() => ({ error: "not found" }));
      response.setHeader("Content-Type", "application/json");
      response.end(JSON.stringify(route({ version: "v24", opened })));
    })
    .listen(3000, "0.0.0.0");
}

main();
