#Requires -RunAsAdministrator
<#
.SYNOPSIS
Install the appliance as a Windows service, or bring an installed one up to date.

.DESCRIPTION
The program goes to C:\Program Files\Appliance, configuration and data to C:\ProgramData\Appliance,
which only administrators and the service itself may read. The service runs as the virtual account
"NT SERVICE\appliance", which has the rights of an ordinary user. An existing configuration, the
data and an account that was set since are kept.
The service is started only when the configuration is valid and -Start is given, or when it ran
before. Nothing is downloaded: name WinSW's program (WinSW-x64.exe) with -WinSW. Its SHA-256 must be
the one of version 2.12.0, or the one that -WinSWSha256 names.

.EXAMPLE
.\install.ps1 -WinSW C:\Downloads\WinSW-x64.exe -Port 8883 -Start
#>
[CmdletBinding()]
param(
    [string] $WinSW,
    [ValidatePattern('^[0-9A-Fa-f]{64}$')]
    [string] $WinSWSha256 = '05B82D46AD331CC16BDC00DE5C6332C1EF818DF8CEEFCD49C726553209B3A0DA',
    [string] $Program = (Join-Path $env:ProgramFiles 'Appliance'),
    # Opened in the firewall for other machines. An upgrade without it keeps the rule there is; 0
    # removes it.
    [ValidateRange(0, 65535)] [int] $Port = 0,
    [switch] $Start
)
Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'

$source = Split-Path -Parent (Split-Path -Parent $PSScriptRoot)   # the unpacked archive
$data = Join-Path $env:ProgramData 'Appliance'
$wrapper = Join-Path $Program 'appliance-service.exe'
$config = Join-Path $data 'config.toml'
$virtual = 'NT SERVICE\appliance'

# By SIDs, since names are translated: the system, the administrators, ordinary users.
$system = 'S-1-5-18'
$administrators = 'S-1-5-32-544'
$users = 'S-1-5-32-545'

function Invoke-Checked([string] $File, [string[]] $Arguments) {
    & $File @Arguments
    if ($LASTEXITCODE -ne 0) { throw "$File $Arguments ended with $LASTEXITCODE" }
}

function Get-Registered { Get-CimInstance Win32_Service -Filter "Name='appliance'" }

# Make a folder with these rights and no others; what is in it inherits them. Any user may make
# folders in ProgramData, and on some disks elsewhere: one that a user owns is not taken over.
# $Rules are access control entries in SDDL.
function Set-Rights([string] $Folder, [string[]] $Rules) {
    if (Test-Path -LiteralPath $Folder) {
        $acl = Get-Acl -LiteralPath $Folder
        $owner = $acl.GetOwner([System.Security.Principal.SecurityIdentifier]).Value
        if ($owner -notin $system, $administrators) {
            throw "$Folder belongs to $($acl.Owner), who may have put anything into it. Look at it; " +
                "then remove it, or keep it: takeown.exe /F `"$Folder`" /A"
        }
    } else {
        New-Item -ItemType Directory -Path $Folder | Out-Null
    }
    $rights = New-Object System.Security.AccessControl.DirectorySecurity
    $rights.SetSecurityDescriptorSddlForm("O:BAG:SYD:PAI$(-join $Rules)")
    Set-Acl -LiteralPath $Folder -AclObject $rights
}

if (-not (Test-Path (Join-Path $source 'appliance.exe'))) {
    throw "appliance.exe is not in $source; run this script from the unpacked archive"
}
if ($WinSW) {
    $found = (Get-FileHash -Algorithm SHA256 -LiteralPath $WinSW).Hash
    if ($found -ne $WinSWSha256) {
        throw "$WinSW is not the WinSW-x64.exe that was expected: its SHA-256 is $found, not $WinSWSha256"
    }
} elseif (-not (Test-Path $wrapper)) {
    throw 'name the program WinSW-x64.exe with -WinSW; docs\windows.md says where it is had'
}

# An upgrade: stop in order, replace the program, start the service if it ran.
$service = Get-Service -Name appliance -ErrorAction SilentlyContinue
$ran = $null -ne $service -and $service.Status -eq 'Running'
if ($ran) {
    $process = (Get-Registered).ProcessId
    Stop-Service -Name appliance
    (Get-Service -Name appliance).WaitForStatus('Stopped', '00:01:30')
    # The wrapper's process ends a moment after it has said so, and its file is in use until then.
    Wait-Process -Id $process -Timeout 30 -ErrorAction SilentlyContinue
}

$rules = @("(A;OICI;FA;;;$system)", "(A;OICI;FA;;;$administrators)")
Set-Rights $data $rules
Set-Rights $Program ($rules + "(A;OICI;0x1200a9;;;$users)")   # read and run

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

# The source of the events of appliance and wrapper in the event log; uninstall.ps1 removes it.
if (-not [System.Diagnostics.EventLog]::SourceExists('appliance')) {
    [System.Diagnostics.EventLog]::CreateEventSource('appliance', 'Application')
}

if (-not (Test-Path $config)) {
    Invoke-Checked (Join-Path $Program 'appliance.exe') @('init', $config)
}
if ($null -eq $service) { Invoke-Checked $wrapper @('install') }

# LocalSystem may do everything: no version of this script wanted it, so it is never kept.
if ((Get-Registered).StartName -eq 'LocalSystem') {
    Invoke-Checked sc.exe @('config', 'appliance', 'obj=', $virtual)
}
$account = (Get-Registered).StartName
$name = $account -replace '^\.\\', "$env:COMPUTERNAME\"
$sid = (New-Object System.Security.Principal.NTAccount $name).Translate(
    [System.Security.Principal.SecurityIdentifier]).Value
Set-Rights $data ($rules + "(A;OICI;0x1301bf;;;$sid)")   # read, write, run, delete

if ($PSBoundParameters.ContainsKey('Port')) {
    $rule = 'Appliance (MQTT)'
    Get-NetFirewallRule -DisplayName $rule -ErrorAction SilentlyContinue | Remove-NetFirewallRule
    if ($Port) {
        $opened = @{
            DisplayName = $rule; Direction = 'Inbound'; Action = 'Allow'; Protocol = 'TCP'
            LocalPort = $Port; Program = (Join-Path $Program 'appliance.exe')
            Profile = 'Domain', 'Private'
        }
        New-NetFirewallRule @opened | Out-Null
    }
}

& (Join-Path $Program 'appliance.exe') check -c $config
$valid = $LASTEXITCODE -eq 0
if ($ran -or ($Start -and $valid)) {
    Start-Service -Name appliance
    Write-Output "The service runs, as $account."
} else {
    Write-Output "The service is installed and not started. Edit $config, then: Start-Service appliance"
}
