use ctwatch::{collect::*, host::visit::Source, probe::{layout::Resolved, plan::*, read::Probes}};
#[tokio::main(flavor="current_thread")]
async fn main() -> anyhow::Result<()> {
    let t=std::time::Instant::now();
    let r = Resolved::of_this_kernel();
    eprintln!("{:?} {:?} {:?} {:?}", t.elapsed(), r.layout, r.drops, r.entries);
    let plan = Plan{chosen: std::env::args().skip(2).map(|a| match a.as_str() {"d"=>(Signal::Drops,Mechanism::Tracepoint), _=>(Signal::Removals,Mechanism::Tracepoint)}).collect(), refused: vec![]};
    let probes = Probes::start(&plan, &r.layout)?;
    eprintln!("{:?} loaded", t.elapsed());
    let c = Collector::start(Means{source: Source::Ctnetlink, probes: Some(probes), scope: Scope::All, cookies: true})?;
    let n: u32 = std::env::args().nth(1).unwrap().parse()?;
    for _ in 0..n {
        let t=std::time::Instant::now();
        let s = c.sample().await?;
        println!("sample took {:?}: misses {:?} host {:?}", t.elapsed(), s.misses, s.host);
        for t in &s.tables { println!("  {:?} {:?} {:?} {:?} {:?} {:?}", t.key, t.name, t.entries, t.unread, t.hooks.map(|h| h.after), t.counters.as_ref().map(|c| (c.iter().map(|c| c.drop).sum::<u32>(), c.iter().map(|c| c.early_drop).sum::<u32>(), c.iter().map(|c|c.insert_failed).sum::<u32>()))); }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    println!("{}", std::fs::read_to_string("/proc/self/status")?.lines().filter(|l| l.starts_with("VmHWM")).collect::<String>());
    Ok(())
}
