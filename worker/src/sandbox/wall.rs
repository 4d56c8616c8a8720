//! The two walls: Landlock's rules, and the words of `bwrap`. Both let the same paths through.

use super::{Launch, Sandbox};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What every command needs to run at all, where it is there. No /proc, in which other processes' environments stand; no
/// /etc as a whole, in which keys may lie.
const SYSTEM: [&str; 22] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/group",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/perl",
    "/etc/pki",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/ssl/certs",
];

/// Devices that hold nothing.
const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// Before it (Linux 6.2) a file could be emptied that may only be read.
const FILES: ABI = ABI::V3;

/// Restricts this thread, and so what it becomes, by Landlock.
pub(super) fn landlock(launch: &Launch) -> Result<(), String> {
    let sandbox = &launch.sandbox;
    let mut rules = demand(sandbox)?.create().map_err(|e| told(&e))?;
    let (read, write) = (AccessFs::from_read(FILES), AccessFs::from_all(FILES));
    let there = |paths: &'static [&'static str]| paths.iter().map(Path::new).filter(|path| path.exists());
    let system = there(&SYSTEM).map(|path| (path, read));
    let devices = there(&DEVICES).map(|path| (path, AccessFs::ReadFile | AccessFs::WriteFile));
    let reads = sandbox.read.iter().map(|path| (path.as_path(), read));
    let writes = sandbox.write.iter().chain(&launch.dir).map(|path| (path.as_path(), write));
    for (path, access) in system.chain(devices).chain(reads).chain(writes) {
        rules = rules.add_rule(beneath(path, access)?).map_err(|e| told(&e))?;
    }
    let ports = |ports: &Option<Vec<u16>>| ports.clone().unwrap_or_default();
    let out = ports(&sandbox.connect).into_iter().map(|port| NetPort::new(port, AccessNet::ConnectTcp));
    let come = ports(&sandbox.bind).into_iter().map(|port| NetPort::new(port, AccessNet::BindTcp));
    for port in out.chain(come) {
        rules = rules.add_rule(port).map_err(|e| told(&e))?;
    }
    let status = rules.restrict_self().map_err(|e| told(&e))?;
    match status.ruleset {
        RulesetStatus::FullyEnforced => Ok(()),
        RulesetStatus::PartiallyEnforced | RulesetStatus::NotEnforced => {
            Err("Landlock does not hold all that it was asked for".into())
        }
    }
}

/// All that is asked of the kernel, refused if it does not have all of it.
fn demand(sandbox: &Sandbox) -> Result<Ruleset, String> {
    let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let mut rules = rules.handle_access(AccessFs::from_all(FILES)).map_err(|_| needs("files", 3, "6.2"))?;
    let network = [(&sandbox.connect, AccessNet::ConnectTcp), (&sandbox.bind, AccessNet::BindTcp)];
    for (ports, access) in network {
        if ports.is_some() {
            rules = rules.handle_access(access).map_err(|_| needs("ports", 4, "6.7"))?;
        }
    }
    if sandbox.alone {
        let scopes = Scope::AbstractUnixSocket | Scope::Signal;
        rules = rules.scope(scopes).map_err(|_| needs("alone", 6, "6.12"))?;
    }
    Ok(rules)
}

fn needs(what: &str, version: u32, linux: &str) -> String {
    let have = match landlock_version() {
        0 => "has none, or it is switched off".to_owned(),
        have => format!("has version {have}"),
    };
    format!("{what} need version {version} of Landlock (Linux {linux}), and this kernel {have}")
}

/// The version of Landlock that this kernel has, 0 for none. Nothing is restricted by asking.
pub(super) fn landlock_version() -> u32 {
    let has = |rules: Result<Ruleset, RulesetError>| rules.is_ok();
    let ask = || Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let steps = [
        has(ask().handle_access(AccessFs::from_all(ABI::V1))),
        has(ask().handle_access(AccessFs::Refer)),
        has(ask().handle_access(AccessFs::Truncate)),
        has(ask().handle_access(AccessNet::BindTcp)),
        has(ask().handle_access(AccessFs::IoctlDev)),
        has(ask().scope(Scope::Signal)),
    ];
    steps.iter().take_while(|has| **has).count().try_into().unwrap_or(0)
}

/// A file has no rights of directories, and asking for them would be refused.
fn beneath(path: &Path, access: BitFlags<AccessFs>) -> Result<PathBeneath<PathFd>, String> {
    let cannot = |why: String| format!("cannot let {} through: {why}", path.display());
    let is_dir = std::fs::metadata(path).map_err(|e| cannot(e.to_string()))?.is_dir();
    let fd = PathFd::new(path).map_err(|e| cannot(e.to_string()))?;
    Ok(PathBeneath::new(fd, if is_dir { access } else { access & AccessFs::from_file(FILES) }))
}

fn told(error: &RulesetError) -> String {
    format!("Landlock refuses: {error}")
}

/// The words before a command that put it behind `bwrap`: namespaces with these paths, an empty /tmp, and processes that see
/// nobody else's.
pub(super) fn bwrap(launch: &Launch) -> Vec<OsString> {
    let sandbox = &launch.sandbox;
    let mut words: Vec<OsString> =
        ["bwrap", "--die-with-parent", "--unshare-pid", "--unshare-ipc"].map(Into::into).into();
    if !sandbox.network {
        words.push("--unshare-net".into());
    }
    words.extend(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"].map(OsString::from));
    let mut bind = |how: &str, path: &Path| words.extend([how.into(), path.into(), path.into()]);
    for path in SYSTEM.iter().map(Path::new) {
        bind("--ro-bind-try", path);
    }
    let shallow_first = |paths: &[PathBuf]| {
        let mut paths = paths.to_vec();
        paths.sort();
        paths
    };
    shallow_first(&sandbox.read).iter().for_each(|path| bind("--ro-bind", path));
    shallow_first(&sandbox.write).iter().chain(&launch.dir).for_each(|path| bind("--bind", path));
    if let Some(dir) = &launch.dir {
        words.extend(["--chdir".into(), dir.into()]);
    }
    words.push("--".into());
    words
}

#[cfg(test)]
mod tests {
    use super::super::Wall;
    use super::*;

    #[test]
    fn bwrap_gets_what_is_written_after_what_is_read() {
        let sandbox = Sandbox {
            wall: Wall::Bwrap,
            read: vec!["/srv/b".into(), "/srv".into()],
            write: vec!["/srv/out".into()],
            network: false,
            ..Sandbox::default()
        };
        let words = bwrap(&Launch { sandbox, dir: Some("/var/run-1".into()) });
        let text = words.join(&OsString::from(" ")).into_string().unwrap();
        let paths = "--ro-bind /srv /srv --ro-bind /srv/b /srv/b --bind /srv/out /srv/out --bind /var/run-1 /var/run-1";
        assert!(text.ends_with(&format!("{paths} --chdir /var/run-1 --")), "{text}");
        assert!(text.contains("--unshare-net"), "{text}");
    }

    #[test]
    fn a_path_that_is_not_there_is_told() {
        let told = beneath(Path::new("/no/such/path"), AccessFs::from_read(FILES)).unwrap_err();
        assert!(told.contains("/no/such/path") && told.contains("No such file"), "{told}");
    }
}
