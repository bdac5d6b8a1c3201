//! The limits of memory and processors that control groups set: of a container, a batch job or a systemd unit. Both
//! versions of the Linux interface are read (`man 7 cgroups`), and every group above the own one, since each of them
//! binds. A file that is missing or says `max` sets no limit.

use std::path::{Component, Path, PathBuf};

/// A limit of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryLimit {
    /// Bytes that the group may use.
    pub limit_bytes: u64,
    /// Bytes of them that are not in use; the file cache that the kernel would drop first counts as free.
    pub free_bytes: u64,
    /// The file that sets the limit.
    pub file: PathBuf,
}

/// A limit of processor time.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessorLimit {
    /// Seconds of processor time in a second.
    pub processors: f64,
    /// The file that sets the limit.
    pub file: PathBuf,
}

/// Returns the limit of memory that leaves this process the least; `None` if no group sets one.
pub fn memory_limit() -> Option<MemoryLimit> {
    memory_limit_below(Path::new("/"))
}

/// Returns the tightest limit of processor time; `None` if no group sets one.
pub fn processor_limit() -> Option<ProcessorLimit> {
    processor_limit_below(Path::new("/"))
}

fn memory_limit_below(root: &Path) -> Option<MemoryLimit> {
    let of_both = groups(root, Version::One("memory")).into_iter().map(|group| memory_limit_one(&group));
    let limits = of_both.chain(groups(root, Version::Two).into_iter().map(|group| memory_limit_two(&group)));
    limits.flatten().min_by_key(|limit| limit.free_bytes)
}

fn processor_limit_below(root: &Path) -> Option<ProcessorLimit> {
    let of_both = groups(root, Version::One("cpu")).into_iter().map(|group| processor_limit_one(&group));
    let limits =
        of_both.chain(groups(root, Version::Two).into_iter().map(|group| processor_limit_two(&group)));
    limits.flatten().min_by(|a, b| a.processors.total_cmp(&b.processors))
}

/// The version of the interface; the first has a hierarchy of groups for each controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One(&'static str),
    Two,
}

/// Returns the folders of the own group and of those above it.
fn groups(root: &Path, version: Version) -> Vec<PathBuf> {
    let own = own_group(root, version);
    let mut folders = Vec::new();
    for (mount, shown) in mounts(root, version) {
        // A mount shows the groups below `shown`. An own group outside of it is of another namespace.
        let inside = own.strip_prefix(&shown).unwrap_or(Path::new(""));
        let is_plain = inside.components().all(|part| matches!(part, Component::Normal(_)));
        let inside = if is_plain { inside } else { Path::new("") };
        for group in inside.ancestors() {
            let folder = below(root, &mount).join(group);
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
    }
    folders
}

/// Returns the group that `/proc/self/cgroup` names, such as `/docker/1a2b`.
fn own_group(root: &Path, version: Version) -> PathBuf {
    let text = std::fs::read_to_string(below(root, Path::new("/proc/self/cgroup"))).unwrap_or_default();
    let of_line = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next()?, parts.next()?);
        let is_wanted = match version {
            Version::One(controller) => controllers.split(',').any(|known| known == controller),
            Version::Two => controllers.is_empty(),
        };
        is_wanted.then(|| PathBuf::from(group))
    };
    text.lines().find_map(of_line).unwrap_or_else(|| PathBuf::from("/"))
}

/// Returns where the groups are mounted, and the group that each mount shows as its root: as `/proc/self/mountinfo`
/// says (`man 5 proc`), and at the usual place.
fn mounts(root: &Path, version: Version) -> Vec<(PathBuf, PathBuf)> {
    let text = std::fs::read_to_string(below(root, Path::new("/proc/self/mountinfo"))).unwrap_or_default();
    let of_line = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (shown, at) = (mount.next()?, mount.next()?);
        let mut file_system = file_system.split(' ');
        let (kind, options) = (file_system.next()?, file_system.nth(1)?);
        let is_wanted = match version {
            Version::One(controller) => {
                kind == "cgroup" && options.split(',').any(|known| known == controller)
            }
            Version::Two => kind == "cgroup2",
        };
        is_wanted.then(|| (PathBuf::from(at), PathBuf::from(shown)))
    };
    let mut mounts: Vec<_> = text.lines().filter_map(of_line).collect();
    let usual = match version {
        Version::One(controller) => Path::new("/sys/fs/cgroup").join(controller),
        Version::Two => PathBuf::from("/sys/fs/cgroup"),
    };
    if !mounts.iter().any(|(at, _)| *at == usual) {
        mounts.push((usual, PathBuf::from("/")));
    }
    mounts
}

/// Returns an absolute path below `root`.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn memory_limit_one(group: &Path) -> Option<MemoryLimit> {
    let file = group.join("memory.limit_in_bytes");
    // Without a limit, the file holds the largest number of whole pages.
    let limit_bytes = number(&file).filter(|&limit| limit < 1 << 60)?;
    let used = number(&group.join("memory.usage_in_bytes")).unwrap_or(0);
    Some(limit(limit_bytes, used, inactive(group, "total_inactive_file"), file))
}

fn memory_limit_two(group: &Path) -> Option<MemoryLimit> {
    let used = number(&group.join("memory.current")).unwrap_or(0);
    // Above `high` the kernel slows the group down until it has given memory back.
    let files = ["memory.max", "memory.high"].map(|name| group.join(name));
    let limits = files.into_iter().filter_map(|file| Some((number(&file)?, file)));
    let (limit_bytes, file) = limits.min_by_key(|&(bytes, _)| bytes)?;
    Some(limit(limit_bytes, used, inactive(group, "inactive_file"), file))
}

fn limit(limit_bytes: u64, used: u64, inactive: u64, file: PathBuf) -> MemoryLimit {
    let free_bytes = limit_bytes.saturating_sub(used.saturating_sub(inactive));
    MemoryLimit { limit_bytes, free_bytes, file }
}

/// Returns the bytes of the file cache that have not been used for long.
fn inactive(group: &Path, name: &str) -> u64 {
    let text = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let of_line = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(of_line).unwrap_or(0)
}

fn processor_limit_one(group: &Path) -> Option<ProcessorLimit> {
    let file = group.join("cpu.cfs_quota_us");
    // -1 stands for no limit, and is no number here.
    let (quota, period) = (number(&file)?, number(&group.join("cpu.cfs_period_us"))?);
    processors(quota, period, file)
}

fn processor_limit_two(group: &Path) -> Option<ProcessorLimit> {
    let file = group.join("cpu.max");
    let text = std::fs::read_to_string(&file).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    processors(quota.parse().ok()?, period.parse().ok()?, file)
}

fn processors(quota: u64, period: u64, file: PathBuf) -> Option<ProcessorLimit> {
    (quota > 0 && period > 0).then(|| ProcessorLimit { processors: quota as f64 / period as f64, file })
}

/// Returns the number that a file holds; `None` if it is missing or says `max`.
fn number(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A made-up `/proc` and `/sys`.
    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new(own: &str, mounts: &str, files: &[(&str, &str)]) -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            let all = [("proc/self/cgroup", own), ("proc/self/mountinfo", mounts)];
            for (name, text) in all.iter().chain(files) {
                let path = machine.0.path().join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            machine
        }

        /// Limit, free bytes, and the file.
        fn memory(&self) -> Option<(u64, u64, String)> {
            let limit = memory_limit_below(self.0.path())?;
            Some((limit.limit_bytes, limit.free_bytes, self.name(&limit.file)))
        }

        fn processors(&self) -> Option<(f64, String)> {
            let limit = processor_limit_below(self.0.path())?;
            Some((limit.processors, self.name(&limit.file)))
        }

        fn name(&self, file: &Path) -> String {
            file.strip_prefix(self.0.path()).unwrap().display().to_string()
        }
    }

    const TWO: &str = "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn version_two_counts_what_is_in_use_but_for_the_idle_file_cache() {
        let machine = Machine::new(
            "0::/\n",
            TWO,
            &[
                ("sys/fs/cgroup/memory.max", "2000\n"),
                ("sys/fs/cgroup/memory.high", "max\n"),
                ("sys/fs/cgroup/memory.current", "700\n"),
                ("sys/fs/cgroup/memory.stat", "anon 400\ninactive_file 300\nactive_file 0\n"),
                ("sys/fs/cgroup/cpu.max", "150000 100000\n"),
            ],
        );
        assert_eq!(machine.memory(), Some((2000, 1600, "sys/fs/cgroup/memory.max".to_owned())));
        assert_eq!(machine.processors(), Some((1.5, "sys/fs/cgroup/cpu.max".to_owned())));
    }

    #[test]
    fn the_tightest_of_nested_groups_binds() {
        let machine = Machine::new(
            "0::/slurm/job_7/step\n",
            TWO,
            &[
                ("sys/fs/cgroup/slurm/memory.max", "9000"),
                ("sys/fs/cgroup/slurm/job_7/memory.max", "5000"),
                ("sys/fs/cgroup/slurm/job_7/memory.high", "4000"),
                ("sys/fs/cgroup/slurm/job_7/memory.current", "1000"),
                ("sys/fs/cgroup/slurm/job_7/step/memory.max", "max"),
                ("sys/fs/cgroup/slurm/cpu.max", "400000 100000"),
                ("sys/fs/cgroup/slurm/job_7/cpu.max", "max 100000"),
            ],
        );
        let high = "sys/fs/cgroup/slurm/job_7/memory.high".to_owned();
        assert_eq!(machine.memory(), Some((4000, 3000, high)));
        assert_eq!(machine.processors(), Some((4.0, "sys/fs/cgroup/slurm/cpu.max".to_owned())));
    }

    #[test]
    fn version_one_has_a_hierarchy_for_each_controller() {
        let mounts = "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      35 31 0:32 /docker/1a /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let machine = Machine::new(
            "9:name=systemd:/\n4:memory:/docker/1a\n2:cpu,cpuacct:/docker/1a\n0::/\n",
            mounts,
            &[
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "3000"),
                ("sys/fs/cgroup/memory/memory.usage_in_bytes", "2500"),
                ("sys/fs/cgroup/memory/memory.stat", "inactive_file 9\ntotal_inactive_file 500\n"),
                ("sys/fs/cgroup/cpu,cpuacct/docker/1a/cpu.cfs_quota_us", "200000"),
                ("sys/fs/cgroup/cpu,cpuacct/docker/1a/cpu.cfs_period_us", "100000"),
                ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1"),
                ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000"),
            ],
        );
        let file = "sys/fs/cgroup/memory/memory.limit_in_bytes".to_owned();
        assert_eq!(machine.memory(), Some((3000, 1000, file)), "the mount shows the own group as its root");
        let file = "sys/fs/cgroup/cpu,cpuacct/docker/1a/cpu.cfs_quota_us".to_owned();
        assert_eq!(machine.processors(), Some((2.0, file)));
    }

    #[test]
    fn a_group_of_another_namespace_is_read_at_its_mount() {
        let files = [("sys/fs/cgroup/memory.max", "2000"), ("elsewhere/memory.max", "1")];
        let machine = Machine::new("0::/../../elsewhere\n", TWO, &files);
        assert_eq!(machine.memory(), Some((2000, 2000, "sys/fs/cgroup/memory.max".to_owned())));
    }

    #[test]
    fn without_files_or_numbers_there_is_no_limit() {
        let unlimited = [
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712"),
            ("sys/fs/cgroup/memory.max", "max"),
            ("sys/fs/cgroup/cpu.max", "max 100000"),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000"),
        ];
        for machine in [Machine::new("", "", &unlimited), Machine::new("0::/a\n", TWO, &[])] {
            assert_eq!((machine.memory(), machine.processors()), (None, None));
        }
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(memory_limit_below(empty.path()), None);
    }

    #[test]
    fn a_group_that_uses_more_than_its_limit_has_nothing_free() {
        let files = [("sys/fs/cgroup/memory.max", "2000"), ("sys/fs/cgroup/memory.current", "2100")];
        assert_eq!(Machine::new("0::/\n", TWO, &files).memory().map(|limit| limit.1), Some(0));
    }
}
