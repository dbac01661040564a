// node's http-proxy with kept connections: PORT ORIGIN_PORT IDLE_CONNECTIONS.
const http = require("http");
const httpProxy = require("http-proxy");

const [port, origin, idle] = process.argv.slice(2).map(Number);
const proxy = httpProxy.createProxyServer({
  target: { host: "127.0.0.1", port: origin },
  agent: new http.Agent({ keepAlive: true, maxFreeSockets: idle }),
  xfwd: true,
});
proxy.on("error", (error, request, response) => {
  if (response.writeHead && !response.headersSent) response.writeHead(502);
  response.end();
});
const server = http.createServer((request, response) => proxy.web(request, response));
server.keepAliveTimeout = 600_000;
server.listen({ port, host: "127.0.0.1", backlog: 4096 });
