"""The configuration: TOML in, frozen objects out.

An error names the file, the key, the value and the way to mend it; unknown keys are errors with
a suggestion. Defaults are safe as they stand. docs/configuration.md lists every key.
Not for: opening anything that a key names, save in ``files``, which ``check`` and ``run`` call.
"""

from __future__ import annotations

from appliance.config.checks import advice
from appliance.config.files import all_secrets, anonymous_allowed, check_files, read_secret
from appliance.config.reading import load, loads
from appliance.config.tables import (
    AccessConfig,
    AccessRule,
    AllowConfig,
    Base,
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
    QlikConfig,
    RecorderConfig,
    Selector,
    ServiceConfig,
    TlsConfig,
    TriggerConfig,
)
from appliance.config.values import (
    Duration,
    FolderPath,
    ReadPath,
    Secret,
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

__all__ = [
    "AccessConfig",
    "AccessRule",
    "AllowConfig",
    "Base",
    "ByApp",
    "ByName",
    "ByProperty",
    "ByTag",
    "CertificateConfig",
    "Config",
    "Duration",
    "FolderPath",
    "HeaderConfig",
    "JournalConfig",
    "LimitsConfig",
    "ListenerConfig",
    "QlikConfig",
    "ReadPath",
    "RecorderConfig",
    "Secret",
    "Selector",
    "ServiceConfig",
    "Size",
    "TlsConfig",
    "TopicFilter",
    "TriggerConfig",
    "WritePath",
    "advice",
    "all_secrets",
    "anonymous_allowed",
    "check_files",
    "format_duration",
    "format_size",
    "is_loopback",
    "load",
    "loads",
    "parse_bind",
    "parse_duration",
    "parse_size",
    "read_secret",
]
