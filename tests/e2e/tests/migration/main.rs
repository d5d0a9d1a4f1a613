//! Whole migrations: the chart installed by helm, real applications, and what is there afterwards.

mod again;
mod apart;
mod back_and_forth;
mod bare_pods;
mod block;
mod csi;
mod failure;
mod fence;
mod hold;
mod jobs;
mod keda;
mod kinds;
mod lanes;
mod operator;
mod options;
mod preflight;
mod refusals;
mod resize;
mod rolling;
mod settings;
mod templates;
mod together;
mod uninstall;
mod warm;
mod workloads;
