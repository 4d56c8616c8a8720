//! `[worker.sandbox]` and `[tasks."…".sandbox]`: what holds commands back, in the words of the configuration.
//!
//! What a task does not say is what the worker's sandbox says, key by key.

use super::section::{Mistake, Origins, Reader, Section, section};
use super::value::{Ports, Size};
use minium_worker::Wall;
use std::path::PathBuf;
use std::time::Duration;

section! {
    /// What holds commands back.
    Sandbox {
        /// `off`; `basic`: no new privileges (no `sudo`), no core dumps, a clean environment, files that nobody else can read,
        /// and what the other keys say; `landlock` or `bwrap`: the same, and of the file system nothing but the system's programs
        /// and libraries, `read` and `write`. A sandbox that cannot be had is an error. Without it `off`.
        mode: Option<String> = "";
        /// Behind `landlock` or `bwrap`: directories and files that can be read and executed.
        read: Option<Vec<String>> = "";
        /// Behind `landlock` or `bwrap`: directories and files that can be changed, too.
        write: Option<Vec<String>> = "";
        /// Behind `landlock` (Linux 6.7): TCP goes out to these ports alone; with an empty list to none.
        connect: Option<Ports> = "";
        /// Behind `landlock` (Linux 6.7): TCP is listened for on these ports alone; with an empty list on none.
        bind: Option<Ports> = "";
        /// Behind `bwrap`: with `false` there is no network at all. Without it there is.
        network: Option<bool> = "";
        /// Behind `landlock` (Linux 6.12): no signals and no abstract sockets to processes outside. `bwrap` shows no others
        /// anyway.
        alone: Option<bool> = "";
        /// Variables that commands see besides `PATH`, `HOME`, `LANG`, `TZ`, `TMPDIR` and those that are set for them; `LC_*` is
        /// all that begin so, `*` all that are not ours.
        environment: Option<Vec<String>> = "";
        /// Commands may gain privileges, as by `sudo`. Only with `basic`.
        new_privileges: Option<bool> = "";
        /// Rights, in octal, that files which commands make do not have. Without it `077`.
        umask: Option<String> = "";
        /// Each run works in a fresh directory in this one, which is also its `TMPDIR`, and which is removed after the run.
        work_dir: Option<PathBuf> = "";
        /// Processor time of each process, in whole seconds.
        cpu: Option<Duration> = "";
        /// Address space of each process.
        memory: Option<Size> = "";
        /// Largest file that is written.
        file_size: Option<Size> = "";
        /// Files that each process has open.
        open_files: Option<u32> = "";
        /// Processes and threads of the worker's user, all of them counted. It does not hold root, and is refused there.
        processes: Option<u32> = "";
        /// Commands may leave core dumps.
        core_dumps: Option<bool> = "";
        /// Memory of all processes of a run together, without swap: in a scope of systemd's.
        scope_memory: Option<Size> = "";
        /// Processes and threads of a run together: in a scope of systemd's.
        scope_processes: Option<u32> = "";
    }
}

impl Sandbox {
    /// From `KEY=VALUE`, or the mode alone; several of them make one.
    pub(crate) fn from_words(words: &[String]) -> Result<Sandbox, Vec<Mistake>> {
        let (mut table, mut origins, mut mistakes) = (toml::Table::new(), Origins::new(), Vec::new());
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or(("mode", word));
            if value.trim().is_empty() {
                // a key without a value is one that is not said, and nothing would be held back
                let what = "has no value".to_owned();
                mistakes.push(Mistake { path: key.trim().into(), origin: None, what });
            }
            if table.insert(key.trim().into(), value.into()).is_some() {
                let what = "is said twice".to_owned();
                mistakes.push(Mistake { path: key.trim().into(), origin: None, what });
            }
            origins.insert(key.trim().into(), "--sandbox".into());
        }
        let mut reader = Reader::new("", table, &origins, &mut mistakes);
        let sandbox = Sandbox::read(&mut reader);
        reader.finish();
        if mistakes.is_empty() { Ok(sandbox) } else { Err(mistakes) }
    }

    /// What is not said here is as it is there.
    pub(crate) fn or(&self, outer: &Sandbox) -> Sandbox {
        let (inner, outer) = (self.clone(), outer.clone());
        Sandbox {
            mode: inner.mode.or(outer.mode),
            read: inner.read.or(outer.read),
            write: inner.write.or(outer.write),
            connect: inner.connect.or(outer.connect),
            bind: inner.bind.or(outer.bind),
            network: inner.network.or(outer.network),
            alone: inner.alone.or(outer.alone),
            environment: inner.environment.or(outer.environment),
            new_privileges: inner.new_privileges.or(outer.new_privileges),
            umask: inner.umask.or(outer.umask),
            work_dir: inner.work_dir.or(outer.work_dir),
            cpu: inner.cpu.or(outer.cpu),
            memory: inner.memory.or(outer.memory),
            file_size: inner.file_size.or(outer.file_size),
            open_files: inner.open_files.or(outer.open_files),
            processes: inner.processes.or(outer.processes),
            core_dumps: inner.core_dumps.or(outer.core_dumps),
            scope_memory: inner.scope_memory.or(outer.scope_memory),
            scope_processes: inner.scope_processes.or(outer.scope_processes),
        }
    }

    /// As the worker has it; nothing when it is off.
    ///
    /// # Errors
    /// The key that is wrong, and why.
    pub(crate) fn build(&self) -> Result<Option<minium_worker::Sandbox>, (&'static str, String)> {
        let wall = match self.mode.as_deref() {
            None | Some("off") => None,
            Some("basic") => Some(Wall::None),
            Some("landlock") => Some(Wall::Landlock),
            Some("bwrap") => Some(Wall::Bwrap),
            Some(_) => return Err(("mode", "must be \"off\", \"basic\", \"landlock\" or \"bwrap\"".into())),
        };
        let Some(wall) = wall else {
            let says = self.show().keys().any(|key| key != "mode") && self.mode.is_none();
            return if says {
                Err(("mode", "is missing, so nothing is held back: say \"basic\"".into()))
            } else {
                Ok(None)
            };
        };
        let usual = minium_worker::Sandbox::default();
        let umask = match self.umask.as_deref() {
            None => usual.umask,
            Some(text) => {
                u32::from_str_radix(text, 8).map_err(|_| ("umask", "must be octal, as in \"077\"".into()))?
            }
        };
        if self.cpu.is_some_and(|cpu| cpu.subsec_nanos() > 0) {
            return Err(("cpu", "must be whole seconds".into()));
        }
        let paths = |paths: &Option<Vec<String>>| paths.iter().flatten().map(PathBuf::from).collect();
        let size = |size: Option<Size>| size.map(|size| size.0);
        let sandbox = minium_worker::Sandbox {
            wall,
            read: paths(&self.read),
            write: paths(&self.write),
            connect: self.connect.clone().map(|ports| ports.0),
            bind: self.bind.clone().map(|ports| ports.0),
            network: self.network.unwrap_or(usual.network),
            alone: self.alone.unwrap_or(usual.alone),
            environment: self.environment.clone().unwrap_or_default(),
            new_privileges: self.new_privileges.unwrap_or(usual.new_privileges),
            umask,
            work_dir: self.work_dir.clone(),
            cpu_seconds: self.cpu.map(|cpu| cpu.as_secs()),
            memory_bytes: size(self.memory),
            file_bytes: size(self.file_size),
            open_files: self.open_files.map(u64::from),
            processes: self.processes.map(u64::from),
            core_dumps: self.core_dumps.unwrap_or(usual.core_dumps),
            scope_memory_bytes: size(self.scope_memory),
            scope_processes: self.scope_processes.map(u64::from),
        };
        sandbox.check()?;
        Ok(Some(sandbox))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Sandbox {
        Sandbox::from_words(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn words_make_a_sandbox() {
        let said = [
            "landlock",
            "read=/srv, /opt",
            "connect=443,5432",
            "bind=none",
            "cpu=1m",
            "memory=1GiB",
            "umask=027",
        ];
        let built = words(&said).build().unwrap().unwrap();
        let expected = minium_worker::Sandbox {
            wall: Wall::Landlock,
            read: vec!["/srv".into(), "/opt".into()],
            connect: Some(vec![443, 5432]),
            bind: Some(vec![]),
            cpu_seconds: Some(60),
            memory_bytes: Some(1 << 30),
            umask: 0o027,
            ..minium_worker::Sandbox::default()
        };
        assert_eq!(built, expected);
        assert_eq!(words(&[]).build(), Ok(None));
        assert_eq!(words(&["off", "cpu=1s"]).build(), Ok(None));
    }

    #[test]
    fn what_would_hold_nothing_back_is_refused() {
        let refused = |said: &[&str]| words(said).build().unwrap_err().0;
        assert_eq!(refused(&["cpu=1s"]), "mode");
        assert_eq!(refused(&["mode=on"]), "mode");
        assert_eq!(refused(&["basic", "read=/srv"]), "read");
        assert_eq!(refused(&["basic", "umask=9"]), "umask");
        assert_eq!(refused(&["basic", "cpu=1500ms"]), "cpu");
        assert_eq!(Sandbox::from_words(&["landlock".into(), "connect=".into()]).unwrap_err().len(), 1);
        let unknown = Sandbox::from_words(&["ram=1GiB".into(), "cpu=soon".into()]).unwrap_err();
        assert_eq!(unknown.len(), 2, "{unknown:?}");
    }

    #[test]
    fn a_task_says_what_is_different() {
        let worker = words(&["landlock", "read=/srv", "cpu=1m"]);
        let task = words(&["read=/opt", "cpu=5s"]).or(&worker).build().unwrap().unwrap();
        assert_eq!((task.wall, task.cpu_seconds), (Wall::Landlock, Some(5)));
        assert_eq!(task.read, [PathBuf::from("/opt")]);
        assert_eq!(words(&["off"]).or(&worker).build(), Ok(None));
    }
}
