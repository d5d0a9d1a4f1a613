//! A migration to watch: an application that writes all the time, a real `helm install`, what
//! others are refused meanwhile, and the proof that nothing was lost. `make demo` runs it.

mod intruder;
mod listener;
mod proof;
mod watch;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use pvmigrate_e2e::example::{self, CLAIMS, LONG};
use pvmigrate_e2e::{Cluster, Release, WAIT, dispose, leftovers, tree};

use intruder::Intruder;
use listener::Listener;

#[tokio::main]
async fn main() -> ExitCode {
    let shown = tokio::select! {
        shown = demo() => shown,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nNOT AS IT SHOULD BE: {error:#}");
            eprintln!("What is there stays, in the namespaces demo-…: kubectl get namespaces");
            ExitCode::FAILURE
        }
    }
}

async fn demo() -> Result<()> {
    let cluster = Cluster::get().await?;
    let [source, dest] = &cluster.classes;
    let (app, own) = (
        namespace(&cluster, "demo-").await?,
        namespace(&cluster, "demo-pvmigrate-").await?,
    );

    println!("1. An application on StorageClass {source}, in namespace {app}");
    example::deploy(&cluster, &app, source).await?;
    let pods = example::pods(&cluster, &app, &CLAIMS).await?;
    for pod in pods.values() {
        cluster
            .exec(&app, pod, &format!("cd /data && {}", tree::FILL))
            .await?;
    }
    println!(
        "   StatefulSet db (2 pods), Deployments web and files; each pod has a claim of its own, a tree of"
    );
    println!(
        "   files that is hard to copy, and a log to which it adds a line every tenth of a second."
    );
    println!("   One claim's name has {} characters.\n", LONG.len());
    let before = proof::listings(&cluster, &app, &pods).await?;
    let listener = Listener::start(&cluster, &app, &pods);

    let release = Release::new(&cluster, &own, &[&app]);
    println!(
        "2. helm install pvmigrate charts/pvmigrate --namespace {own} --set sourceSC={source},destSC={dest} \\"
    );
    println!("     --set 'namespaces={{{app}}}' {}\n", WAIT.join(" "));
    let began = Instant::now();
    let intruder = Intruder::start(&cluster, &app, began);
    let installing = tokio::spawn({
        let release = release.clone();
        async move { release.helm("install", &WAIT).await?.success() }
    });
    watch::log(&release, &app, began).await?;
    installing.await??;
    let took = began.elapsed().as_secs_f64();
    release.ended().await?.expect(0, &[])?;

    intruder.was_refused().await?;

    println!("\n3. Afterwards");
    let heard = listener.heard();
    let longest = proof::check(&cluster, &app, &before, &heard).await?;
    leftovers::none_of_the_run(&release, &cluster, &app).await?;
    println!(
        "   Nothing else is left: no staging claim, no mover, no fence, no mark on a workload or a claim."
    );

    println!("\n4. How long it took");
    println!(
        "   this run                  {took:5.1} s, the application that was away longest: {longest:.1} s"
    );
    println!("   replicatedhq/pvmigrate     91   s, every application away 51-52 s   (*)");
    println!("   by hand, nothing to copy    -     away 1.1 s: the floor             (*)");
    println!(
        "   (*) measured earlier on a test bed like this one, with 4 claims of one small file each"
    );

    clean(&cluster, &release, &app, &own).await?;
    println!(
        "\nThe sources were disposed of by the commands that the report names; release and namespaces are deleted."
    );
    Ok(())
}

async fn clean(cluster: &Cluster, release: &Release, app: &str, own: &str) -> Result<()> {
    let report = release.report().await?;
    let lines = report["claims"].as_object().into_iter().flatten();
    let sources: Vec<_> = lines
        .filter_map(|(_, line)| Some((line["sourceVolume"].as_str()?, line["dispose"].as_str()?)))
        .collect();
    ensure!(
        sources.len() == CLAIMS.len(),
        "the report names {} sources to dispose of",
        sources.len()
    );
    try_join_all(
        sources
            .iter()
            .map(|(volume, command)| dispose(cluster, volume, command)),
    )
    .await?;
    release.uninstall().await?;
    leftovers::none_of_the_release(release, cluster).await?;
    let namespaces = Api::<Namespace>::all(cluster.client.clone());
    for name in [app, own] {
        namespaces.delete(name, &DeleteParams::default()).await?;
    }
    Ok(())
}

async fn namespace(cluster: &Cluster, prefix: &str) -> Result<String> {
    let wanted = Namespace {
        metadata: ObjectMeta {
            generate_name: Some(prefix.into()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    let api = Api::<Namespace>::all(cluster.client.clone());
    Ok(api
        .create(&PostParams::default(), &wanted)
        .await?
        .name_any())
}
