"""The configuration: TOML in, frozen objects out.

An error names the file, the key, the value and the way to mend it; unknown keys are errors with
a suggestion. Defaults are safe as they stand. docs/configuration.md lists every key.
Not for: opening anything that a key names, save in ``files``, which ``check`` and ``run`` call.
"""

from __future__ import annotations

from appliance.config.changes import Change, changes, counts_at_once, taken_over
from appliance.config.checks import advice
from appliance.config.files import all_secrets, anonymous_allowed, check_files, read_secret
from appliance.config.reading import load, loads, recheck
from appliance.config.recorder_paths import not_a_recording
from appliance.config.tables import (
    AccessConfig,
    AccessRule,
    AllowConfig,
    ByApp,
    ByName,
    ByProperty,
    ByTag,
    CertificateConfig,
    Config,
    HeaderConfig,
    JournalConfig,
    LimitsConfig,
    ListenerConfig,
    MetricsConfig,
    NoticeKind,
    NotifyConfig,
    PublishConfig,
    QlikConfig,
    RecorderConfig,
    Selector,
    ServiceConfig,
    Table,
    TimerConfig,
    TlsConfig,
    TriggerConfig,
    UiConfig,
)
from appliance.config.values import (
    Duration,
    FolderPath,
    ReadPath,
    Size,
    TopicFilter,
    WritePath,
    format_duration,
    format_size,
    is_loopback,
    parse_bind,
    parse_duration,
    parse_size,
)
from appliance.secret import Secret

__all__ = [
    "AccessConfig",
    "AccessRule",
    "AllowConfig",
    "ByApp",
    "ByName",
    "ByProperty",
    "ByTag",
    "CertificateConfig",
    "Change",
    "Config",
    "Duration",
    "FolderPath",
    "HeaderConfig",
    "JournalConfig",
    "LimitsConfig",
    "ListenerConfig",
    "MetricsConfig",
    "NoticeKind",
    "NotifyConfig",
    "PublishConfig",
    "QlikConfig",
    "ReadPath",
    "RecorderConfig",
    "Secret",
    "Selector",
    "ServiceConfig",
    "Size",
    "Table",
    "TimerConfig",
    "TlsConfig",
    "TopicFilter",
    "TriggerConfig",
    "UiConfig",
    "WritePath",
    "advice",
    "all_secrets",
    "anonymous_allowed",
    "changes",
    "check_files",
    "counts_at_once",
    "format_duration",
    "format_size",
    "is_loopback",
    "load",
    "loads",
    "not_a_recording",
    "parse_bind",
    "parse_duration",
    "parse_size",
    "read_secret",
    "recheck",
    "taken_over",
]
