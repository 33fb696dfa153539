// Publishes and receives with MQTT.js: node mqttjs_client.mjs URL VERSION [CA CERT KEY]
// The folder with node_modules/mqtt is named by MQTTJS_FOLDER.
import { setDefaultResultOrder } from "node:dns";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(process.env.MQTTJS_FOLDER + "/");
const mqtt = require("mqtt");
const [url, version, ca, cert, key] = process.argv.slice(2);
const options = { protocolVersion: Number(version), clientId: "js-" + version, reconnectPeriod: 0 };
setDefaultResultOrder("ipv4first"); // the listeners are on 127.0.0.1; Node 18 tries ::1 alone
if (ca) Object.assign(options, { ca: readFileSync(ca) });
if (cert) Object.assign(options, { cert: readFileSync(cert), key: readFileSync(key) });

const client = mqtt.connect(url, options);
let expected = 3;
client.on("error", (error) => { console.error(String(error)); process.exit(1); });
client.on("close", () => process.exit(expected ? 2 : 0));
client.on("message", (topic, payload, packet) => {
  console.log(topic, String(payload), packet.qos);
  if (--expected === 0) client.end();
});
client.on("connect", () =>
  client.subscribe("clients/#", { qos: 2 }, () => {
    for (const qos of [0, 1, 2]) client.publish("clients/js", "m" + qos, { qos });
  }),
);
