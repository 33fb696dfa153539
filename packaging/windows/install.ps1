#Requires -RunAsAdministrator
<#
.SYNOPSIS
Install the appliance as a Windows service, or bring an installed one up to date.

.DESCRIPTION
The program goes to C:\Program Files\Appliance, configuration and data to C:\ProgramData\Appliance,
which only administrators and the service itself may read. An existing configuration is kept.
The service is started only when the configuration is valid and -Start is given, or when it ran
before. Nothing is downloaded: name WinSW's program (WinSW-x64.exe) with -WinSW.

.EXAMPLE
.\install.ps1 -WinSW C:\Downloads\WinSW-x64.exe -Port 8883 -Start
#>
[CmdletBinding()]
param(
    [string] $WinSW,
    [string] $Program = (Join-Path $env:ProgramFiles 'Appliance'),
    # Opened in the firewall for other machines; without it, none is.
    [ValidateRange(0, 65535)] [int] $Port = 0,
    [switch] $Start
)
Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'

$source = Split-Path -Parent (Split-Path -Parent $PSScriptRoot)   # the unpacked archive
$data = Join-Path $env:ProgramData 'Appliance'
$wrapper = Join-Path $Program 'appliance-service.exe'
$config = Join-Path $data 'config.toml'

function Invoke-Checked([string] $File, [string[]] $Arguments) {
    & $File @Arguments
    if ($LASTEXITCODE -ne 0) { throw "$File $Arguments ended with $LASTEXITCODE" }
}

if (-not (Test-Path (Join-Path $source 'appliance.exe'))) {
    throw "appliance.exe is not in $source; run this script from the unpacked archive"
}
if (-not $WinSW -and -not (Test-Path $wrapper)) {
    throw 'name the program WinSW-x64.exe with -WinSW; docs\windows.md says where it is had'
}

# An upgrade: stop in order, replace the program, start the service if it ran.
$service = Get-Service -Name appliance -ErrorAction SilentlyContinue
$ran = $null -ne $service -and $service.Status -eq 'Running'
if ($ran) {
    Stop-Service -Name appliance
    (Get-Service -Name appliance).WaitForStatus('Stopped', '00:01:30')
}

New-Item -ItemType Directory -Force -Path $Program, $data | Out-Null
$old = Join-Path $Program 'lib.old'
$lib = Join-Path $Program 'lib'
if (Test-Path $old) { Remove-Item -Recurse -Force $old }
if (Test-Path $lib) { Rename-Item $lib $old }
try {
    Copy-Item -Recurse -Force (Join-Path $source 'lib') $lib
    Copy-Item -Force (Join-Path $source 'appliance.exe') $Program
} catch {
    if (Test-Path $lib) { Remove-Item -Recurse -Force $lib }
    if (Test-Path $old) { Rename-Item $old $lib }
    throw
}
if (Test-Path $old) { Remove-Item -Recurse -Force $old }
foreach ($each in 'LICENSE', 'README.md', 'CHANGELOG.md', 'THIRD-PARTY-LICENSES.txt') {
    Copy-Item -Force (Join-Path $source $each) $Program
}
Copy-Item -Force (Join-Path $PSScriptRoot 'appliance-service.xml') $Program
if ($WinSW) { Copy-Item -Force $WinSW $wrapper }

if (-not (Test-Path $config)) {
    Invoke-Checked (Join-Path $Program 'appliance.exe') @('init', $config)
}
if ($null -eq $service) { Invoke-Checked $wrapper @('install') }

# Secrets and messages lie in there: nothing inherited, by SIDs since names are translated.
# S-1-5-18 is the system, S-1-5-32-544 the administrators.
Invoke-Checked icacls.exe @($data, '/inheritance:r', '/grant:r',
    '*S-1-5-18:(OI)(CI)F', '*S-1-5-32-544:(OI)(CI)F', 'NT SERVICE\appliance:(OI)(CI)M', '/T', '/C', '/Q')

$rule = 'Appliance (MQTT)'
Get-NetFirewallRule -DisplayName $rule -ErrorAction SilentlyContinue | Where-Object { $Port } |
    Remove-NetFirewallRule
if ($Port) {
    New-NetFirewallRule -DisplayName $rule -Direction Inbound -Action Allow -Protocol TCP `
        -LocalPort $Port -Program (Join-Path $Program 'appliance.exe') -Profile Domain, Private |
        Out-Null
}

& (Join-Path $Program 'appliance.exe') check -c $config
$valid = $LASTEXITCODE -eq 0
if ($ran -or ($Start -and $valid)) {
    Start-Service -Name appliance
    Write-Output 'The service runs.'
} else {
    Write-Output "The service is installed and not started. Edit $config, then: Start-Service appliance"
}
