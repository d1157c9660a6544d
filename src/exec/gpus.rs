use std::fs;
use std::path::Path;

/// The variable by which CUDA hides GPUs from a process.
pub(super) const CUDA_VISIBLE_DEVICES: &str = "CUDA_VISIBLE_DEVICES";

/// How many GPUs a program on this machine can use, `visible` being its `CUDA_VISIBLE_DEVICES`; `None` where that cannot
/// be told.
///
/// NVIDIA's driver lists its GPUs under `/proc/driver/nvidia/gpus`, and sandboxes without that have the device files.
pub(super) fn usable(visible: Option<&str>) -> Option<u32> {
    usable_under(Path::new("/"), visible)
}

fn usable_under(root: &Path, visible: Option<&str>) -> Option<u32> {
    // AMD's GPUs, and those that Windows lends to Linux, are listed elsewhere; parts of a GPU are not listed at all.
    let others = ["dev/kfd", "dev/dxg"].iter().any(|device| root.join(device).exists());
    if others || visible.is_some_and(|visible| visible.contains("MIG-")) {
        return None;
    }
    let count = |folder: &str, counts: fn(&str) -> bool| {
        let names = fs::read_dir(root.join(folder)).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.filter(|name| name.to_str().is_some_and(counts)).count()
    };
    let is_gpu = |name: &str| name.strip_prefix("nvidia").is_some_and(|number| number.parse::<u32>().is_ok());
    let present = count("proc/driver/nvidia/gpus", |_| true).max(count("dev", is_gpu));
    // CUDA stops reading the list at the first entry that names no GPU.
    let named = |list: &str| list.split(',').map(str::trim).take_while(|gpu| !gpu.is_empty() && *gpu != "-1").count();
    let usable = visible.map_or(present, |list| named(list).min(present));
    u32::try_from(usable).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_driver_lists_and_cuda_may_see_is_usable() {
        let machine = |files: &[&str]| {
            let root = tempfile::tempdir().unwrap();
            for file in files {
                fs::create_dir_all(root.path().join(file)).unwrap();
            }
            root
        };
        let two = machine(&["proc/driver/nvidia/gpus/0000:01:00.0", "proc/driver/nvidia/gpus/0000:02:00.0"]);
        for (visible, usable) in [
            (None, Some(2)),
            (Some(""), Some(0)),
            (Some("-1"), Some(0)),
            (Some("1"), Some(1)),
            (Some("1, 0"), Some(2)),
            (Some("0,1,2,3"), Some(2)),
            (Some("0,-1,1"), Some(1)),
            (Some("GPU-8a1b"), Some(1)),
            (Some("MIG-8a1b,MIG-9c2d,MIG-0e3f"), None),
        ] {
            assert_eq!(usable_under(two.path(), visible), usable, "{visible:?}");
        }
        let sandbox = machine(&["dev/nvidia0", "dev/nvidia7", "dev/nvidiactl", "dev/nvidia-uvm"]);
        assert_eq!(usable_under(sandbox.path(), None), Some(2));
        assert_eq!(usable_under(machine(&["dev"]).path(), None), Some(0));
        assert_eq!(usable_under(machine(&["dev/kfd"]).path(), None), None);
    }
}
