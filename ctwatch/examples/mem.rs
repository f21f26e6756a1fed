use ctwatch::probe::{layout::Resolved};
fn hwm(s:&str){ println!("{s} {}", std::fs::read_to_string("/proc/self/status").unwrap().lines().filter(|l| l.starts_with("VmHWM")|| l.starts_with("VmRSS")).collect::<String>()); }
fn main() { hwm("start"); let b=ctwatch::host::btf::Btf::vmlinux().unwrap(); hwm("btf"); drop(b); let s=ctwatch::host::symbols::Symbols::read(&["a"]); hwm("sym"); drop(s); let r=Resolved::of_this_kernel(); hwm("layout");
 let plan = ctwatch::probe::plan::Plan{chosen: vec![(ctwatch::probe::plan::Signal::Drops,ctwatch::probe::plan::Mechanism::Tracepoint)], refused: vec![]};
 let p = ctwatch::probe::read::Probes::start(&plan,&r.layout).unwrap(); hwm("probes"); drop(p); }
