"""The keys of Butler that no module takes over: why, and what there is instead.

Not for: keys that are taken over in another way (the modules of the parts).
"""

from __future__ import annotations

import difflib

from appliance.commands.from_butler.findings import Findings
from appliance.commands.from_butler.yaml_tree import Item

_SERVER_ASKED = (
    "the appliance asks the Qlik server what runs and what ended, so it needs no log appender and "
    "no UDP port; when Butler is gone, remove the appender files from the nodes"
)
_CLOUD = (
    'for Qlik Cloud an appliance signs in to the tenant by itself: [qlik] edition = "cloud" in a '
    "configuration of its own, with its own [[notify]] and [[outcome]]"
)
_SERVICES = (
    "the appliance watches no Windows services; `appliance health` and its metrics tell whether "
    "the Qlik server answers"
)
_LICENCES = "the appliance does not watch or release licences of Qlik"
_NUMBERS = "numbers are read from the appliance: [metrics] with /metrics for Prometheus"
_NEW_RELIC = f"New Relic is not told; {_NUMBERS}"
_VERSION = "the appliance does not record the version of Qlik Sense"
_FILES = "the appliance copies, moves and deletes no files for callers"
_TEXTS = (
    "notices have their own text; `title` and `text` of [[notify]] change it (docs/triggers.md)"
)
_PROGRAM = "it is about Butler's own program"
_ENGINE = "the appliance starts tasks by the repository service and needs no engine"
_OTHER_TASKS = (
    "`failed` and `succeeded` of [[notify]] are for tasks of every kind; `tasks`, `tags` and "
    "`properties` choose some"
)

_SECTIONS = {
    "udpServerConfig": _SERVER_ASKED,
    "mqttConfig.taskFailureServerStatusTopic": _SERVER_ASKED,
    "mqttConfig.serviceRunningTopic": _SERVICES,
    "mqttConfig.serviceStoppedTopic": _SERVICES,
    "mqttConfig.serviceStatusTopic": _SERVICES,
    "mqttConfig.qlikSenseServerLicenseTopic": _LICENCES,
    "mqttConfig.qlikSenseServerLicenseExpireTopic": _LICENCES,
    "mqttConfig.qlikSenseCloud": _CLOUD,
    "qlikSenseCloud": _CLOUD,
    "scriptLog.storeOnDisk.qsCloud": _CLOUD,
    "serviceMonitor": _SERVICES,
    "emailNotification.serviceStopped": _SERVICES,
    "emailNotification.serviceStarted": _SERVICES,
    "slackNotification.serviceStopped": _SERVICES,
    "slackNotification.serviceStarted": _SERVICES,
    "teamsNotification.serviceStopped": _SERVICES,
    "teamsNotification.serviceStarted": _SERVICES,
    "webhookNotification.serviceMonitor": _SERVICES,
    "webhookNotification.qlikSenseServerLicenseMonitor": _LICENCES,
    "webhookNotification.qlikSenseServerLicenseExpiryAlert": _LICENCES,
    "emailNotification.distributeTaskSuccess": _OTHER_TASKS,
    "emailNotification.distributeTaskFailure": _OTHER_TASKS,
    "emailNotification.preloadTaskSuccess": _OTHER_TASKS,
    "emailNotification.preloadTaskFailure": _OTHER_TASKS,
    "slackNotification.restMessage": "the appliance has no call that posts to Slack",
    "mqttConfig.azureEventGrid": "the bridge is not made, because MQTT is off",
    "restServerEndpointsEnable": "there is no [http], because Butler's calls are off",
    "qlikSenseLicense": _LICENCES,
    "qlikSenseLicense.serverLicenseMonitor": _LICENCES,
    "qlikSenseLicense.licenseMonitor": _LICENCES,
    "qlikSenseLicense.licenseRelease": _LICENCES,
    "qlikSenseVersion": _VERSION,
    "qlikSenseVersion.versionMonitor": _VERSION,
    "influxDb": f"{_NUMBERS}, and a [[recorder]] writes outcomes into files or a database",
    "uptimeMonitor": _NUMBERS,
    "incidentTool.signl4": "a [[notify]] with an address signl4:// of Apprise tells SIGNL4",
    "incidentTool": _NEW_RELIC,
    "incidentTool.newRelic": _NEW_RELIC,
    "thirdPartyToolsCredentials": _NEW_RELIC,
    "restServerEndpointsConfig": _NEW_RELIC,
    "heartbeat": (
        "monitoring asks the appliance instead: [metrics] with /healthz, or `appliance health`"
    ),
    "dockerHealthCheck": "a container's health check calls `appliance health`",
    "configVisualisation": "`appliance check` shows what the configuration means",
    "configEngine": _ENGINE,
    "configDirectories": _FILES,
    "qvdPath": _FILES,
    "fileCopyApprovedDirectories": _FILES,
    "fileMoveApprovedDirectories": _FILES,
    "fileDeleteApprovedDirectories": _FILES,
    "qlikSenseUrls": _TEXTS,
    "genericUrls": _TEXTS,
    "anonTelemetry": "the appliance sends nothing about itself to anyone",
    "systemInfo": _PROGRAM,
    "restServerApiDocGenerate": _PROGRAM,
    "fileLogging": "the log is in `data_dir` in any case",
    "logDirectory": "the log is in `data_dir`: [service] data_dir",
    "gitHub": _PROGRAM,
    "slackConfig": "a setting before Butler 4.3; write [[notify]] with an address of Apprise",
    "teamsConfig": "a setting before Butler 4.3; write [[notify]] with an address of Apprise",
    "keyValueStore": "the key-value store comes with [http], which is off with Butler's calls",
}
"""Sections and keys by their path; the longest one counts."""
_KEYS = dict.fromkeys(
    (
        "bodyFileDirectory",
        "htmlTemplateFile",
        "messageType",
        "basicMsgTemplate",
        "templateFile",
    ),
    _TEXTS,
) | {
    "priority": "Apprise sends mail without a priority",
    "iconEmoji": "the picture of a sender is the service's own",
    "sessionStartTopic": "a topic before Butler 4; the appliance does not watch sessions of users",
}
"""Keys with the same meaning in several sections."""
_UNKNOWN = "not a key of Butler 16 that is known here; it may be of another version, or misspelled"


def explain(butler: Item, findings: Findings) -> None:
    """Say why each value that no module has dealt with is not taken over."""
    for path, _ in list(findings.unread(butler)):
        prefix = _section(path)
        if prefix:
            if _is_off(butler, prefix):
                findings.turned_off(prefix)
            else:
                findings.leave(prefix, _SECTIONS[prefix])
            continue
        above, _, key = path.rpartition(".")
        if key in _KEYS:
            findings.read(path)
            findings.leave(
                f"{above.partition('.')[0]}.*.{key}" if "." in above else path, _KEYS[key]
            )
        else:
            findings.leave(path, _unknown(path))


def _section(path: str) -> str:
    """The longest entry of ``_SECTIONS`` that a path is, or is below."""
    parts = path.partition("[")[0].split(".")
    for end in range(len(parts), 0, -1):
        found = ".".join(parts[:end])
        if found in _SECTIONS:
            return found
    return ""


def _is_off(butler: Item, path: str) -> bool:
    item = butler
    for name in path.split("."):
        value = item.value
        if not isinstance(value, dict) or name not in value:
            return False
        item = value[name]
    value = item.value
    return isinstance(value, dict) and "enable" in value and value["enable"].value is False


def _unknown(path: str) -> str:
    top = path.partition(".")[0].partition("[")[0]
    known = sorted({each.partition(".")[0] for each in _SECTIONS} | _TAKEN)
    near = difflib.get_close_matches(top, known, 1) if top not in known else []
    return f"{_UNKNOWN} (is {near[0]} meant?)" if near else _UNKNOWN


_TAKEN = frozenset(
    {
        "logLevel",
        "cert",
        "configQRS",
        "mqttConfig",
        "startTaskFilter",
        "scheduler",
        "emailNotification",
        "slackNotification",
        "teamsNotification",
        "webhookNotification",
        "scriptLog",
        "restServerConfig",
        "restServerEndpointsEnable",
    }
)
"""Sections that modules take over."""
