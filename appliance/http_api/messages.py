"""``POST /messages/{topic}``: publish a message; the answer says that it is on disk."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from appliance.http_api.caller import CLIENT_ID, caller_of
from appliance.http_api.context import Context
from appliance.http_api.problem import ProblemError
from appliance.mqtt.topics import topic_problem


def routes(context: Context) -> list[Route]:
    """The routes."""
    appliance = context.appliance

    async def publish(request: Request) -> Response:
        caller = await caller_of(request)
        topic = request.path_params["topic"]
        if wrong := topic_problem(topic):
            raise ProblemError(400, f"The topic {topic!r} can't be published to: {wrong}")
        if not caller.may_publish(topic):
            raise ProblemError(403, f"The user may not publish to {topic}.")
        payload = await request.body()

        async def enter() -> int:
            seq = appliance.door.publish(
                topic,
                payload,
                client_id=CLIENT_ID,
                username=caller.username,
                address=caller.address,
            )
            await appliance.door.settled()
            return seq

        seq = await context.on_engine(enter)
        body = msgspec.json.encode({"topic": topic, "seq": seq})
        return Response(body, media_type="application/json")

    return [Route("/messages/{topic:path}", publish, methods=["POST"])]
