// What people build from parts to start Qlik tasks by MQTT: MQTT.js subscribes, axios posts.
//
// For comparison in latency.py; it does the least that works: no journal, no retry, no outcome.
// Usage: node starter.js BROKER_PORT QLIK_PORT

"use strict";

const axios = require("axios");
const mqtt = require("mqtt");

const [brokerPort, qlikPort] = process.argv.slice(2);
const KEY = "0123456789abcdef";
const qlik = axios.create({
  baseURL: `http://127.0.0.1:${qlikPort}`,
  headers: {
    "X-Qlik-Xrfkey": KEY,
    "X-Qlik-User": "UserDirectory=INTERNAL;UserId=sa_repository",
  },
});

const client = mqtt.connect(`mqtt://127.0.0.1:${brokerPort}`);
client.on("connect", () => {
  client.subscribe("qliksense/start_task", { qos: 1 }, () => console.log("listening"));
});
client.on("message", (_topic, payload) => {
  qlik
    .post(`/qrs/task/${payload.toString()}/start/synchronous?xrfkey=${KEY}`)
    .catch((error) => console.error(error.message));
});
