use crate::Cluster;

/// What to print of each namespace.
const VIEWS: [&[&str]; 4] = [
    &[
        "get",
        "pods,jobs,statefulsets,deployments,pvc",
        "-o",
        "wide",
    ],
    &["get", "configmaps", "-l", "pvmigrate.io/run", "-o", "yaml"],
    &["get", "events", "--sort-by=.metadata.creationTimestamp"],
    &["get", "leases"],
];

/// Of each volume the notes that pvmigrate writes on it.
const VOLUME_NOTES: &str = r"jsonpath={range .items[*]}{.metadata.name}
  record: {.metadata.annotations.pvmigrate\.io/record}
  source: {.metadata.annotations.pvmigrate\.io/source-volume}
{end}";

/// How much of each pod's log is printed.
const LOG_LINES: &str = "--tail=200";

impl Cluster {
    /// Prints what helps to understand a failure: the namespaces' objects and events, the volumes
    /// with what we wrote on them, and the logs of pods that belong to us.
    pub async fn dump(&self, namespaces: &[String]) {
        eprintln!("==== the cluster at the time of the failure");
        for namespace in namespaces {
            for view in VIEWS {
                let mut arguments = vec!["--namespace", namespace.as_str()];
                arguments.extend(view);
                self.show(&arguments).await;
            }
            self.logs(namespace).await;
        }
        self.show(&["get", "pv", "-o", "wide"]).await;
        self.show(&["get", "pv", "-o", VOLUME_NOTES]).await;
        self.show(&[
            "get",
            "validatingwebhookconfigurations,validatingadmissionpolicies",
        ])
        .await;
    }

    async fn logs(&self, namespace: &str) {
        let pods = self
            .kubectl(&["--namespace", namespace, "get", "pods", "-o", "name"])
            .await;
        let Ok(Ok(names)) = pods.map(crate::Output::success) else {
            return;
        };
        for pod in names.lines() {
            self.show(&[
                "--namespace",
                namespace,
                "logs",
                "--all-containers",
                "--prefix",
                LOG_LINES,
                pod,
            ])
            .await;
        }
    }

    async fn show(&self, arguments: &[&str]) {
        eprintln!("---- kubectl {}", arguments.join(" "));
        match self.kubectl(arguments).await {
            Ok(output) => eprintln!("{}{}", output.stdout, output.stderr),
            Err(error) => eprintln!("{error:#}"),
        }
    }
}
