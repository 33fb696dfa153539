#Requires -RunAsAdministrator
<#
.SYNOPSIS
Install the Windows service, use it, kill it, install it again, stop and remove it; what
docs/windows.md promises of that must hold. The first promise that does not ends the script.

.DESCRIPTION
For a machine that is thrown away: it must have no appliance, and C:\ProgramData\Appliance is removed
at the end. Archive is the unpacked archive's folder, WinSW the program WinSW-x64.exe.

.EXAMPLE
packaging\service-check.ps1 -Archive unpacked\appliance-0.1.0-windows-x86_64 -WinSW winsw\WinSW-x64.exe
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory)] [string] $Archive,
    [Parameter(Mandatory)] [string] $WinSW
)
Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'

$install = Join-Path $Archive 'share\windows\install.ps1'
$uninstall = Join-Path $Archive 'share\windows\uninstall.ps1'
$folder = Join-Path $env:ProgramFiles 'Appliance'
$program = Join-Path $folder 'appliance.exe'
$data = Join-Path $env:ProgramData 'Appliance'
$config = Join-Path $data 'config.toml'
$log = Join-Path $data 'logs\appliance-service.err.log'
$rule = 'Appliance (MQTT)'
$virtual = 'NT SERVICE\appliance'
$began = Get-Date

function Assert([bool] $Holds, [string] $Promise) {
    if (-not $Holds) { throw "does not hold: $Promise" }
    Write-Host "holds: $Promise"
}

# Ask again until it is so, for a minute and a half: recovery begins after five seconds.
function Wait-Until([scriptblock] $Holds, [string] $Promise) {
    $end = (Get-Date).AddSeconds(90)
    while ((Get-Date) -lt $end) {
        if (& $Holds) { break }
        Start-Sleep -Milliseconds 500
    }
    Assert ([bool] (& $Holds)) $Promise
}

function Test-Health {
    & $program health -c $config *> $null
    $LASTEXITCODE -eq 0
}

function Get-Registered { Get-CimInstance Win32_Service -Filter "Name='appliance'" }

function Get-Running { Get-CimInstance Win32_Process -Filter "Name='appliance.exe'" }

function Get-Sid([string] $Account) {
    (New-Object System.Security.Principal.NTAccount $Account).Translate(
        [System.Security.Principal.SecurityIdentifier]).Value
}

# The SIDs that have any right to a file or folder, or only those that may write there.
function Get-Allowed([string] $Path, [switch] $ToWrite) {
    $writing = [System.Security.AccessControl.FileSystemRights] 'Write, Delete, ChangePermissions, TakeOwnership'
    $found = (Get-Acl -LiteralPath $Path).GetAccessRules(
        $true, $true, [System.Security.Principal.SecurityIdentifier])
    @($found | Where-Object { -not $ToWrite -or ($_.FileSystemRights -band $writing) } |
        ForEach-Object { $_.IdentityReference.Value } | Sort-Object -Unique)
}

function Send-Message([string] $Text) {
    & $program publish -c $config -t /demo/integers -m $Text
    Assert ($LASTEXITCODE -eq 0) "a message is accepted: $Text"
}

# Events of the appliance itself in this run, by their id: 1 is a start, 2 an orderly stop.
function Get-EventCount([int] $Id) {
    $wanted = @{ LogName = 'Application'; ProviderName = 'appliance'; Id = $Id; StartTime = $began }
    @(Get-WinEvent -FilterHashtable $wanted -ErrorAction SilentlyContinue).Count
}

function Get-Rule { Get-NetFirewallRule -DisplayName $rule -ErrorAction SilentlyContinue }

Assert ($null -eq (Get-Registered)) 'no appliance is installed before'
Assert (-not (Test-Path $data)) 'there is no data before'

Write-Host '-- another program than WinSW is refused, and nothing is made'
$refused = $false
try { & $install -WinSW (Join-Path $Archive 'appliance.exe') -Port 8883 -Start } catch { $refused = $true }
Assert $refused 'a program with another SHA-256 is refused'
Assert ($null -eq (Get-Registered)) 'no service was made'
Assert (-not (Test-Path $folder)) 'no program was copied'

Write-Host '-- installed, configured and started'
& $install -WinSW $WinSW -Port 8883
Assert ((Get-Service -Name appliance).Status -eq 'Stopped') 'without -Start it is not started'
(Get-Content -LiteralPath $config) -replace '^# event_log = true', 'event_log = true' |
    Set-Content -Encoding utf8 -LiteralPath $config
& $install -Start
Wait-Until { Test-Health } 'the service is well'
Assert ((Get-Registered).StartName -eq $virtual) "it is registered with the account $virtual"
Assert ((Get-Registered).StartMode -eq 'Auto') 'it starts with the system'
$owner = Get-Running | Select-Object -First 1 | Invoke-CimMethod -MethodName GetOwner
Assert ("$($owner.Domain)\$($owner.User)" -eq $virtual) "the program runs as $virtual"

$system = 'S-1-5-18'
$administrators = 'S-1-5-32-544'
$service = Get-Sid $virtual
$ours = @($system, $administrators, $service | Sort-Object)
Assert (Get-Acl -LiteralPath $data).AreAccessRulesProtected 'the data folder inherits no rights'
foreach ($each in $data, $config, (Join-Path $data 'data\journal.db'), $log) {
    Assert (-not (Compare-Object (Get-Allowed $each) $ours)) "only system, administrators, service: $each"
}
foreach ($each in $folder, $program, (Join-Path $folder 'appliance-service.exe'), (Join-Path $folder 'lib')) {
    $may = Get-Allowed $each -ToWrite
    Assert (-not (Compare-Object $may @($system, $administrators | Sort-Object))) "the service can't change $each"
}

$opened = Get-Rule
Assert ($null -ne $opened) 'there is a rule in the firewall'
Assert ("$($opened.Direction) $($opened.Action) $($opened.Enabled)" -eq 'Inbound Allow True') 'it lets clients in'
Assert ("$($opened.Profile)" -eq 'Domain, Private') 'in domain and private networks only'
$filter = $opened | Get-NetFirewallPortFilter
Assert ("$($filter.Protocol) $($filter.LocalPort)" -eq 'TCP 8883') 'on the one port'
Assert (($opened | Get-NetFirewallApplicationFilter).Program -eq $program) 'for this program'

Assert ([System.Diagnostics.EventLog]::SourceExists('appliance')) 'the event log has the source "appliance"'
Wait-Until { (Get-EventCount 1) -gt 0 } 'the start stands in the event log'
Send-Message 'before the kill'

Write-Host '-- killed: it comes back with its data'
$killed = (Get-Running | Select-Object -First 1).ProcessId
Stop-Process -Force -Id $killed
Wait-Until { @(Get-Running | Where-Object ProcessId -NE $killed).Count -gt 0 } 'the program was started again'
Wait-Until { Test-Health } 'the service is well after the kill'
$kept = & $program export -c $config --format jsonl | Out-String
Assert ($kept.Contains('before the kill')) 'the message from before the kill is there'

Write-Host '-- installed over itself: configuration, data, account and firewall rule are kept'
Add-Content -LiteralPath $config -Value '# changed by hand'
$before = (Get-FileHash -LiteralPath $config).Hash
& $install
Wait-Until { Test-Health } 'the service runs again after the upgrade, without -Start'
Assert ((Get-FileHash -LiteralPath $config).Hash -eq $before) 'the configuration is as it was'
$kept = & $program export -c $config --format jsonl | Out-String
Assert ($kept.Contains('before the kill')) 'the message is there after the upgrade'
Assert ((Get-Registered).StartName -eq $virtual) 'the account is as it was'
Assert ($null -ne (Get-Rule)) 'the firewall rule is as it was'

& sc.exe config appliance obj= 'NT AUTHORITY\LocalService'
Assert ($LASTEXITCODE -eq 0) 'another account can be set'
& $install -Port 0
Wait-Until { Test-Health } 'the service runs as the other account'
Assert ((Get-Registered).StartName -eq 'NT AUTHORITY\LocalService') 'an upgrade keeps the account that was set'
Assert ($null -eq (Get-Rule)) '-Port 0 removes the firewall rule'

& sc.exe config appliance obj= LocalSystem
& $install -Port 8883
Wait-Until { Test-Health } 'the service is well with its own account again'
Assert ((Get-Registered).StartName -eq $virtual) 'an upgrade does not leave the service with all rights'
Assert (-not (Compare-Object (Get-Allowed $config) $ours)) 'the other account has no rights any more'

Write-Host '-- stopped in order'
function Get-Stops { @(Select-String -LiteralPath $log -SimpleMatch 'stopped: ').Count }
$stops = Get-Stops
$events = Get-EventCount 2
Stop-Service -Name appliance
(Get-Service -Name appliance).WaitForStatus('Stopped', '00:01:30')
Wait-Until { @(Get-Running).Count -eq 0 } 'the program has ended'
Assert ((Get-Registered).ExitCode -eq 0) 'the service ended with 0'
Assert ((Get-Stops) -eq $stops + 1) 'the log has the orderly stop'
Assert ((Get-EventCount 2) -eq $events + 1) 'the event log has it too'

Write-Host '-- removed: configuration and data stay'
& $uninstall -Confirm:$false
Assert ($null -eq (Get-Service -Name appliance -ErrorAction SilentlyContinue)) 'the service is gone'
Assert (-not (Test-Path $folder)) 'the program is gone'
Assert ($null -eq (Get-Rule)) 'the firewall rule is gone'
Assert (-not [System.Diagnostics.EventLog]::SourceExists('appliance')) 'the source of the event log is gone'
Assert ((Get-FileHash -LiteralPath $config).Hash -eq $before) 'the configuration is as it was'
Assert (Test-Path (Join-Path $data 'data\journal.db')) 'the journal is there'

Write-Host '-- installed on kept data, and removed with it'
& $install -WinSW $WinSW -Start
Wait-Until { Test-Health } 'the service is well on the data that was kept'
Assert ($null -eq (Get-Rule)) 'without -Port no port is opened'
& $uninstall -Confirm:$false -RemoveData
Assert (-not (Test-Path $data)) 'the data is gone'
Write-Host '== holds'
