//! The life of a cluster of real processes under load: daemons are restarted one after the other, replicas are moved. Every
//! client here is our own library, and none of them may be handed an error.

mod clients;
mod commands;
mod draining;
mod members;
mod rolling;
