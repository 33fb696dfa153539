#Requires -RunAsAdministrator
<#
.SYNOPSIS
Remove the service, the firewall rule and the program. Configuration and data are kept unless
-RemoveData is given.
#>
[CmdletBinding(SupportsShouldProcess, ConfirmImpact = 'High')]
param(
    [string] $Program = (Join-Path $env:ProgramFiles 'Appliance'),
    [switch] $RemoveData
)
Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'

$wrapper = Join-Path $Program 'appliance-service.exe'
$data = Join-Path $env:ProgramData 'Appliance'
if (-not (Test-Path (Join-Path $Program 'appliance.exe'))) {
    throw "there is no appliance in $Program; name its folder with -Program"
}
if (-not $PSCmdlet.ShouldProcess($Program, 'Remove the appliance')) { return }

if (Get-Service -Name appliance -ErrorAction SilentlyContinue) {
    $process = (Get-CimInstance Win32_Service -Filter "Name='appliance'").ProcessId
    Stop-Service -Name appliance
    (Get-Service -Name appliance).WaitForStatus('Stopped', '00:01:30')
    # The wrapper's process ends a moment after it has said so, and its file is in use until then.
    if ($process) { Wait-Process -Id $process -Timeout 30 -ErrorAction SilentlyContinue }
    & $wrapper uninstall
    if ($LASTEXITCODE -ne 0) { throw "$wrapper uninstall ended with $LASTEXITCODE" }
}
Get-NetFirewallRule -DisplayName 'Appliance (MQTT)' -ErrorAction SilentlyContinue |
    Remove-NetFirewallRule
# WinSW makes this source of the event log and leaves it.
if ([System.Diagnostics.EventLog]::SourceExists('appliance')) {
    [System.Diagnostics.EventLog]::DeleteEventSource('appliance')
}
Remove-Item -Recurse -Force $Program
if ($RemoveData) {
    Remove-Item -Recurse -Force $data
} else {
    Write-Output "$data is kept: configuration, journal and recordings."
}
