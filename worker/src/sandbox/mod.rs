//! What holds a command back: how much it may use, what it sees, and which files it reaches.
//!
//! A worker sets none of it on the command from outside: between fork and exec safe Rust does nothing. It starts a
//! launcher (its own binary, see [`WorkerOptions::launcher`](crate::WorkerOptions::launcher)), which limits *itself*
//! and then becomes the command; limits outlive exec and are inherited by children. What is asked for is had, or the
//! command does not run: there is no best effort here.

mod enter;
mod probe;
mod wall;

pub use enter::{BecomeError, LAUNCH_FAILED, become_command};
pub(crate) use probe::Probe;
pub use probe::{Ability, abilities};

use crate::command::SET_FOR_EACH_RUN;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::path::PathBuf;

/// What keeps a command from files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wall {
    /// Nothing but the rights of its user.
    #[default]
    None,
    /// The kernel's Landlock: neither root nor namespaces are needed.
    Landlock,
    /// The program `bwrap`: namespaces in which nothing else is there.
    Bwrap,
}

/// What a command is held back by. The default holds back what hardly any command needs: it gains no privileges by
/// set-user-id programs, leaves no core dumps, makes files that are its user's alone, and sees a clean environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sandbox {
    /// What keeps it from files. With a wall it reaches the system's programs and libraries, `read` and `write`.
    pub wall: Wall,
    /// Behind a wall: what lies here can be read and executed.
    pub read: Vec<PathBuf>,
    /// Behind a wall: what lies here can be changed, too.
    pub write: Vec<PathBuf>,
    /// Behind Landlock: TCP goes out to these ports alone.
    pub connect: Option<Vec<u16>>,
    /// Behind Landlock: TCP is listened for on these ports alone.
    pub bind: Option<Vec<u16>>,
    /// Behind `bwrap`: without it there is no network at all.
    pub network: bool,
    /// Behind Landlock: no signals and no abstract sockets to processes outside. `bwrap` shows no others anyway.
    pub alone: bool,
    /// Variables that it sees besides the usual ones (PATH, HOME, LANG, TZ, TMPDIR); `LC_*` is all that begin so, `*` all.
    pub environment: Vec<String>,
    /// It may gain privileges, as by `sudo`.
    pub new_privileges: bool,
    /// Which rights files that it makes do not have.
    pub umask: u32,
    /// Each run gets a directory of its own in this one, works there, and it is removed afterwards.
    pub work_dir: Option<PathBuf>,
    /// Seconds on a processor, for each of its processes.
    pub cpu_seconds: Option<u64>,
    /// Address space of each of its processes.
    pub memory_bytes: Option<u64>,
    /// Largest file that it writes.
    pub file_bytes: Option<u64>,
    /// Files that each of its processes has open.
    pub open_files: Option<u64>,
    /// Processes and threads of its user, those outside counted too. Does not hold root, and is refused there.
    pub processes: Option<u64>,
    /// It may leave core dumps.
    pub core_dumps: bool,
    /// Memory of all its processes together, in a scope of systemd's.
    pub scope_memory_bytes: Option<u64>,
    /// Processes and threads of it alone, in a scope of systemd's.
    pub scope_processes: Option<u64>,
}

impl Default for Sandbox {
    fn default() -> Sandbox {
        Sandbox {
            wall: Wall::None,
            read: Vec::new(),
            write: Vec::new(),
            connect: None,
            bind: None,
            network: true,
            alone: false,
            environment: Vec::new(),
            new_privileges: false,
            umask: 0o077,
            work_dir: None,
            cpu_seconds: None,
            memory_bytes: None,
            file_bytes: None,
            open_files: None,
            processes: None,
            core_dumps: false,
            scope_memory_bytes: None,
            scope_processes: None,
        }
    }
}

/// Variables that every command sees, besides those that are set for each run.
const USUAL: [&str; 5] = ["PATH", "HOME", "LANG", "TZ", "TMPDIR"];

impl Sandbox {
    /// Refuses what contradicts itself or says nothing.
    ///
    /// # Errors
    /// The name of the field, and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let wall = self.wall;
        let needs = |field, has: bool, wanted: Wall| match has && wall != wanted {
            true => Err((field, format!("needs the wall {}", wanted.name()))),
            false => Ok(()),
        };
        needs("connect", self.connect.is_some(), Wall::Landlock)?;
        needs("bind", self.bind.is_some(), Wall::Landlock)?;
        needs("alone", self.alone, Wall::Landlock)?;
        needs("network", !self.network, Wall::Bwrap)?;
        for (field, paths) in [("read", &self.read), ("write", &self.write)] {
            if wall == Wall::None && !paths.is_empty() {
                return Err((field, "needs a wall: landlock or bwrap".into()));
            }
            if let Some(path) = paths.iter().find(|path| !path.is_absolute()) {
                return Err((field, format!("{} is not an absolute path", path.display())));
            }
        }
        if self.work_dir.as_ref().is_some_and(|dir| !dir.is_absolute()) {
            return Err(("work_dir", "must be an absolute path".into()));
        }
        if self.new_privileges && wall != Wall::None {
            return Err(("new_privileges", "cannot be had behind a wall".into()));
        }
        if self.umask > 0o777 {
            return Err(("umask", "must be 0 to 777".into()));
        }
        let limits = [
            ("cpu", self.cpu_seconds),
            ("memory", self.memory_bytes),
            ("open_files", self.open_files),
            ("processes", self.processes),
            ("scope_memory", self.scope_memory_bytes),
            ("scope_processes", self.scope_processes),
        ];
        match limits.iter().find(|(_, limit)| *limit == Some(0)) {
            Some((field, _)) => Err((field, "must be more than 0".into())),
            None => Ok(()),
        }
    }

    /// Does the command see this variable?
    fn shows(&self, name: &OsStr) -> bool {
        let Some(name) = name.to_str() else { return false };
        USUAL.contains(&name)
            || SET_FOR_EACH_RUN.contains(&name)
            || self.environment.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(start) => name.starts_with(start) && !name.starts_with("MINIUM_"),
                None => pattern == name,
            })
    }

    /// The words that put a command into a scope of systemd's, if it shall have one.
    fn scope(&self, is_root: bool) -> Option<Vec<String>> {
        if self.scope_memory_bytes.is_none() && self.scope_processes.is_none() {
            return None;
        }
        let mut words: Vec<String> =
            ["systemd-run", "--quiet", "--collect", "--scope"].map(Into::into).into();
        if !is_root {
            words.push("--user".into());
        }
        let memory = self.scope_memory_bytes.map(|n| [format!("MemoryMax={n}"), "MemorySwapMax=0".into()]);
        let processes = self.scope_processes.map(|n| format!("TasksMax={n}"));
        for property in memory.into_iter().flatten().chain(processes) {
            words.extend(["-p".into(), property]);
        }
        words.push("--".into());
        Some(words)
    }
}

impl Wall {
    /// As it is configured.
    pub fn name(self) -> &'static str {
        match self {
            Wall::None => "none",
            Wall::Landlock => "landlock",
            Wall::Bwrap => "bwrap",
        }
    }
}

/// What a launcher is told behind `--sandbox`, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// What holds the command back.
    pub sandbox: Sandbox,
    /// The directory of this run.
    pub dir: Option<PathBuf>,
}

/// This very program, for a launcher.
const MYSELF: &str = "/proc/self/exe";

/// The words before a command: the launcher, told of the sandbox, and with a scope a second time inside it, since what
/// puts itself into a scope must still reach systemd.
pub(crate) fn words_before(
    launcher: &[String],
    sandbox: Option<&Sandbox>,
    dir: Option<PathBuf>,
) -> Vec<String> {
    if launcher.is_empty() {
        return Vec::new();
    }
    let mut words = launcher.to_vec();
    if let Some(sandbox) = sandbox {
        if let Some(scope) = sandbox.scope(rustix::process::getuid().is_root()) {
            words.push("--".into());
            words.extend(scope);
            // there, `self` would be systemd-run
            let me = launcher.iter().map(|word| match word.as_str() {
                MYSELF => format!("/proc/{}/exe", std::process::id()),
                _ => word.clone(),
            });
            words.extend(me);
        }
        let launch = Launch { sandbox: sandbox.clone(), dir };
        words.push("--sandbox".into());
        words.push(serde_json::to_string(&launch).expect("paths of a configuration are text"));
    }
    words.push("--".into());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_what_is_named() {
        let sandbox = Sandbox { environment: vec!["LC_*".into(), "DISK".into()], ..Sandbox::default() };
        let shows = |name: &str| sandbox.shows(OsStr::new(name));
        assert!(shows("PATH") && shows("LC_ALL") && shows("DISK") && shows("MINIUM_JOB_ID"));
        assert!(!shows("PGPASSWORD") && !shows("DISKS") && !shows("MINIUM_TOKEN"));
        let all = Sandbox { environment: vec!["*".into()], ..Sandbox::default() };
        assert!(all.shows(OsStr::new("PGPASSWORD")) && !all.shows(OsStr::new("MINIUM_TOKEN")));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let refused = |sandbox: Sandbox| sandbox.check().unwrap_err().0;
        let usual = Sandbox::default;
        assert_eq!(usual().check(), Ok(()));
        assert_eq!(refused(Sandbox { read: vec!["/x".into()], ..usual() }), "read");
        assert_eq!(refused(Sandbox { wall: Wall::Bwrap, write: vec!["x".into()], ..usual() }), "write");
        assert_eq!(refused(Sandbox { wall: Wall::Bwrap, connect: Some(vec![]), ..usual() }), "connect");
        assert_eq!(refused(Sandbox { wall: Wall::Landlock, network: false, ..usual() }), "network");
        assert_eq!(refused(Sandbox { alone: true, ..usual() }), "alone");
        assert_eq!(
            refused(Sandbox { wall: Wall::Landlock, new_privileges: true, ..usual() }),
            "new_privileges"
        );
        assert_eq!(refused(Sandbox { work_dir: Some("x".into()), ..usual() }), "work_dir");
        assert_eq!(refused(Sandbox { memory_bytes: Some(0), ..usual() }), "memory");
    }

    #[test]
    fn a_scope_is_asked_of_the_systemd_that_is_the_users() {
        let sandbox =
            Sandbox { scope_memory_bytes: Some(1 << 20), scope_processes: Some(9), ..Sandbox::default() };
        let text = |root| sandbox.scope(root).unwrap().join(" ");
        let limits = "-p MemoryMax=1048576 -p MemorySwapMax=0 -p TasksMax=9 --";
        assert_eq!(text(true), format!("systemd-run --quiet --collect --scope {limits}"));
        assert_eq!(text(false), format!("systemd-run --quiet --collect --scope --user {limits}"));
        assert_eq!(Sandbox::default().scope(true), None);
    }

    #[test]
    fn the_launcher_is_told_of_the_sandbox_where_the_command_begins() {
        let launcher: Vec<String> = ["/proc/self/exe", "become"].map(Into::into).into();
        assert_eq!(words_before(&launcher, None, None), ["/proc/self/exe", "become", "--"]);
        let scoped = Sandbox { scope_processes: Some(9), ..Sandbox::default() };
        let words = words_before(&launcher, Some(&scoped), Some("/run/x".into()));
        let told: Launch = serde_json::from_str(&words[words.len() - 2]).unwrap();
        assert_eq!(told, Launch { sandbox: scoped, dir: Some("/run/x".into()) });
        assert_eq!(words[2..4], ["--", "systemd-run"]);
        assert!(words.contains(&format!("/proc/{}/exe", std::process::id())), "{words:?}");
    }
}
