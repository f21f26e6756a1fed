//! Cgroups as they were found on real machines, each with where it was published.

use super::*;

const ID: &str = "9bca8d63d5fa610783847915bcff0ecac1273e5b4bed3f6fa1b07350e0135961";
const UID: &str = "2c48913c-b29f-11e7-9350-020968147796";

fn of_pod(uid: &str) -> Option<Origin> {
    Some(Origin::Pod(uid.to_owned()))
}

fn of_container(name: &str) -> Option<Origin> {
    Some(Origin::Container(name.to_owned()))
}

/// <https://github.com/spiffe/spire/blob/v1.9.0/pkg/agent/plugin/workloadattestor/k8s/k8s_posix.go>
/// `getPodUIDAndContainerIDFromCGroupPath` lists what was met in the field.
#[test]
fn pods_are_known_in_each_form_of_cgroup() {
    for (path, uid) in [
        (format!("/kubepods/burstable/pod{UID}/{ID}"), UID),
        (format!("/kubepods/besteffort/pod{UID}/{ID}"), UID),
        // Guaranteed pods have no class.
        (format!("/kubepods/pod{UID}/{ID}"), UID),
        (format!("/docker/{ID}/kubepods/besteffort/pod{UID}/{ID}"), UID),
        (
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID}.slice/\
                 docker-{ID}.scope"
            ),
            UID,
        ),
        (
            format!(
                "/kubepods-besteffort-pod72f7f152_440c_66ac_9084_e0fc1d8a910c.slice:\
                 cri-containerd:{ID}"
            ),
            "72f7f152-440c-66ac-9084-e0fc1d8a910c",
        ),
        // Cut off by a cgroup namespace.
        (format!("/../../pod{UID}/{ID}"), UID),
    ] {
        assert_eq!(of_path(&path), of_pod(uid), "{path}");
    }
}

/// Whole files, lines that say the same left out.
/// <https://github.com/spiffe/spire/tree/v1.9.0/pkg/agent/plugin/workloadattestor/k8s/testdata>
#[test]
fn pods_are_known_from_whole_files() {
    let (uid, id) = (
        "a2830d0d-b0f0-4ff0-81b5-0ee4e299cf80",
        "09bc3d7ade839efec32b6bec4ec79d099027a668ddba043083ec21d3c3b8f1e6",
    );
    let node = "93529524695bb00d91c1f6dba692ea8d3550c3b94fb2463af7bc9ec82f992d26";
    // cgroups_pid_in_kind_pod.txt
    let kind = format!(
        "13:name=systemd:/docker/{node}/kubepods/besteffort/pod{uid}/{id}\n\
         12:pids:/docker/{node}/kubepods/besteffort/pod{uid}/{id}\n\
         0::/docker/{node}/system.slice/containerd.service\n"
    );
    assert_eq!(origin(&kind), of_pod(uid));
    // systemd_crio_cgroups_pid_in_pod.txt
    let crio = format!(
        "12:hugetlb:/kubepods.slice/kubepods-besteffort.slice/\
         kubepods-besteffort-poda2830d0d_b0f0_4ff0_81b5_0ee4e299cf80.slice/crio-{id}.scope\n\
         3:rdma:/\n0::/system.slice/crio.service\n"
    );
    assert_eq!(origin(&crio), of_pod(uid));
    // systemd_cgroups_pid_in_pod.txt
    let docker = format!(
        "1:name=systemd:/kubepods.slice/kubepods-burstable.slice/\
         kubepods-burstable-pod{UID}.slice/docker-{ID}.scope\n"
    );
    assert_eq!(origin(&docker), of_pod(UID));
    // cgroups_pid_in_crio_pod.txt: a cgroup namespace hides the pod.
    assert_eq!(origin(&format!("0::/../crio-{id}.scope")), None);
}

/// The systemd driver on cgroup v2, with containerd, CRI-O and kind.
/// - <https://github.com/containerd/containerd/blob/v2.0.0/internal/cri/server/podsandbox/helpers_linux.go>
/// - <https://github.com/spiffe/spire/blob/v1.9.0/pkg/agent/plugin/workloadattestor/k8s/k8s_posix.go>
#[test]
fn pods_of_the_systemd_driver_are_known() {
    let slice = "kubepods-pod18640755_cc12_4557_b96e_0f74d5b44d1d.slice";
    let uid = "18640755-cc12-4557-b96e-0f74d5b44d1d";
    for path in [
        format!("/kubepods.slice/{slice}/cri-containerd-{ID}.scope"),
        format!("/kubepods.slice/{slice}/crio-{ID}.scope"),
        format!("/kubepods.slice/{slice}/crio-{ID}.scope/container"),
        format!("/kubelet.slice/kubelet-kubepods.slice/kubelet-{slice}/cri-containerd-{ID}.scope"),
        format!(
            "/system.slice/docker-{ID}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-{slice}/\
             cri-containerd-{ID}.scope"
        ),
        format!("/system.slice/containerd.service/{slice}:cri-containerd:{ID}"),
        format!("/../../{slice}/cri-containerd-{ID}.scope"),
        format!("/kubepods.slice/{slice}"),
    ] {
        assert_eq!(of_path(&path), of_pod(uid), "{path}");
    }
    // A static pod.
    let path = format!(
        "/kubepods.slice/kubepods-burstable.slice/\
         kubepods-burstable-pod5f1924a86339fb52ac1fc0ed5c10b18e.slice/cri-containerd-{ID}.scope"
    );
    assert_eq!(of_path(&path), of_pod("5f1924a86339fb52ac1fc0ed5c10b18e"));
}

/// As the sources that are named in `pods.rs` build them.
#[test]
fn containers_are_known_by_name_or_by_twelve_digits() {
    let short = &ID[..12];
    for (path, name) in [
        (format!("/docker/{ID}"), short),
        (format!("/docker/{ID}/init.scope"), short),
        (format!("/system.slice/docker-{ID}.scope"), short),
        (format!("/system.slice/nerdctl-{ID}.scope"), short),
        (format!("/machine.slice/libpod-{ID}.scope/container"), short),
        (format!("/libpod_parent/libpod-{ID}"), short),
        (
            format!(
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container"
            ),
            short,
        ),
        ("/lxc.payload.web/system.slice/nginx.service".to_owned(), "web"),
        ("/lxc/101/ns/init.scope".to_owned(), "101"),
        ("/machine.slice/systemd-nspawn@web.service/payload".to_owned(), "web"),
        ("/machine.slice/systemd-nspawn@my\\x2dweb.service/payload".to_owned(), "my-web"),
        ("/machine.slice/machine-my\\x2dweb.scope".to_owned(), "my-web"),
    ] {
        assert_eq!(of_path(&path), of_container(name), "{path}");
    }
}

#[test]
fn other_cgroups_are_of_no_workload() {
    for path in [
        "/",
        "",
        "/system.slice/docker.service",
        "/system.slice/containerd.service",
        "/user.slice/user-1000.slice/session-3.scope",
        "/kubepods.slice",
        "/kubepods.slice/kubepods-burstable.slice",
        "/kubepods/burstable",
        // Not below the kubelet's.
        "/system.slice/pod2c48913c-b29f-11e7-9350-020968147796",
        "/system.slice/app-pod2c48913c_b29f_11e7_9350_020968147796.slice",
        "/mykubepods-pod2c48913c_b29f_11e7_9350_020968147796.slice",
        "/kubepods.slice/kubepods-pod.slice",
        "/kubepods.slice/kubepods-pod..%2f..%2fetc.slice",
        // Beside the container: the monitors.
        "/lxc.monitor.web",
        "/lxc.payload.",
        "/docker/buildkit/abc",
        "/machine.slice/systemd-nspawn@.service",
        "/machine.slice/systemd-nspawn@a\\xZZ.service",
    ] {
        assert_eq!(of_path(path), None, "{path}");
    }
    for monitor in [
        format!("/machine.slice/libpod-conmon-{ID}.scope"),
        format!("/system.slice/docker-{}.scope", &ID[1..]),
        // Of a pod, but which is hidden.
        format!("/../crio-{ID}.scope"),
        format!("/kubepods/pod{UID}/{}", "x/".repeat(3000)),
    ] {
        assert_eq!(of_path(&monitor), None, "{monitor}");
    }
}

/// <https://man7.org/linux/man-pages/man7/cgroups.7.html>
#[test]
fn any_hierarchy_may_tell() {
    let v1 = format!(
        "11:perf_event:/\n10:memory:/kubepods/besteffort/pod{UID}/{ID}\n1:name=systemd:/docker/{ID}\n"
    );
    assert_eq!(origin(&v1), of_pod(UID), "a pod says more than a container");
    let hybrid = format!("9:name=systemd:/\n0::/system.slice/docker-{ID}.scope\n");
    assert_eq!(origin(&hybrid), of_container(&ID[..12]));
    for nothing in ["", "0::/\n", "garbage\n1:\n:::\n", "0::/init.scope"] {
        assert_eq!(origin(nothing), None);
    }
}

/// As `BuildPodLogsDirectory` builds them, and what it never would.
#[test]
fn folders_of_logs_name_pods() {
    let folder = |name: &str| {
        folder_name(name).map(|(uid, workload)| (uid, workload.of_pod().unwrap_or_default()))
    };
    let known = |uid: &str, name: &str| Some((uid.to_owned(), name.to_owned()));
    let name = format!("kube-system_coredns-5d78c9869d-7wgzp_{UID}");
    assert_eq!(folder(&name), known(UID, "kube-system/coredns-5d78c9869d-7wgzp"));
    let hash = "5f1924a86339fb52ac1fc0ed5c10b18e";
    assert_eq!(
        folder(&format!("kube-system_etcd-node1.example.com_{hash}")),
        known(hash, "kube-system/etcd-node1.example.com")
    );
    for hostile in [
        UID.to_owned(),
        format!("a_{UID}"),
        format!("_b_{UID}"),
        format!("a_b_c_{UID}"),
        format!("a\u{1b}[2J_b_{UID}"),
        format!("a/b_c_{UID}"),
        format!("a_{}_{UID}", "b".repeat(254)),
        "a_b_..".to_owned(),
    ] {
        assert_eq!(folder(&hostile), None, "{hostile}");
    }
}

#[test]
fn two_folders_of_one_pod_name_none() {
    let logs = tempfile::tempdir().unwrap();
    let other = "18640755-cc12-4557-b96e-0f74d5b44d1d";
    for name in [format!("a_b_{UID}"), format!("a_c_{UID}"), format!("web_nginx_{other}")] {
        fs::create_dir(logs.path().join(name)).unwrap();
    }
    let mut logs = Logs { of: Some(read(logs.path())) };
    assert_eq!(logs.of(UID), None);
    assert_eq!(logs.of(other).and_then(|workload| workload.of_pod()).as_deref(), Some("web/nginx"));
    assert_eq!(read(Path::new("/no such")).len(), 0);
}

/// A process in the namespace of these tests, which is no workload that anybody knows.
#[test]
fn in_vain_it_waits_longer_each_time() {
    let netns = crate::host::netns::current().unwrap();
    let mut workloads = Workloads::default();
    let mut logs = Logs::default();
    let wait = |workloads: &Workloads| match &workloads.known[&netns.inode] {
        Known::Nothing { wait, .. } => *wait,
        Known::Found { workload, .. } => panic!("{workload:?}"),
    };
    let past = |workloads: &mut Workloads| {
        let Some(Known::Nothing { tried, .. }) = workloads.known.get_mut(&netns.inode) else {
            panic!()
        };
        *tried -= Duration::from_secs(301);
    };
    // No such process.
    let gone = [u32::MAX];
    for seconds in [5, 10, 20, 40, 80, 160, 300, 300] {
        assert_eq!(workloads.workload(&netns, &gone, &mut logs), Workload::default());
        assert_eq!(wait(&workloads).as_secs(), seconds);
        let Some(Known::Nothing { tried, .. }) = workloads.known.get(&netns.inode) else {
            panic!()
        };
        let before = *tried;
        workloads.workload(&netns, &gone, &mut logs);
        let Some(Known::Nothing { tried, .. }) = workloads.known.get(&netns.inode) else {
            panic!()
        };
        assert_eq!(before, *tried, "too early");
        past(&mut workloads);
    }
    // Others live there by now.
    workloads.workload(&netns, &[], &mut logs);
    assert_eq!(wait(&workloads).as_secs(), 5);
}

#[test]
fn what_was_found_lasts_as_long_as_its_process() {
    let own = std::process::id();
    let netns = crate::host::netns::current().unwrap();
    let (began, inode) = (began_at(own).unwrap(), netns.inode);
    let pod = || folder_name(&format!("web_nginx_{UID}")).unwrap().1;
    let found = |pid, began, way| Known::Found { workload: pod(), pid, began, way };
    let ask = |known| {
        let mut workloads = Workloads { known: HashMap::from([(inode, known)]) };
        workloads.workload(&netns, &[], &mut Logs::default())
    };
    assert_eq!(ask(found(own, began, None)), pod());
    assert_eq!(ask(found(own, began + 1, None)), Workload::default(), "its pid is another's");
    assert_eq!(ask(found(own, began + 1, netns.way())), pod(), "what led to it still does");
    let other = Some("/run/netns/x of 7".to_owned());
    assert_eq!(ask(found(own, began + 1, other)), Workload::default());
}

#[test]
fn the_host_is_no_pods() {
    let own = crate::host::netns::current().unwrap();
    let host = own.inode;
    let mut found = BTreeMap::from([(host, own)]);
    let known = HashMap::new();
    let mut workloads = Workloads { known };
    workloads.tell(&mut found, &Residents::from([(host, vec![1])]), host);
    assert!(workloads.known.is_empty());
}
