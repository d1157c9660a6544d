//! benchrun: one manifest becomes a deployed, measured and repeatable LLM serving benchmark.
//!
//! ```text
//! text ─manifest→ Manifest ─matrix→ [Cell] ─plan→ Plan ─exec→ Event*, RequestRecord* ─stats→ [Summary] ─report→ CSV, JSON
//! ```
//!
//! | module | purpose |
//! | --- | --- |
//! | [`base`] | ids, hashing, atomic writes, scalars, secrets |
//! | [`spec`], [`event`], [`record`] | types only: what to do; what happened in a run; what happened to a request |
//! | [`manifest`] | text to `Manifest`; every complaint names file, line and key path |
//! | [`recipe`] | an engine as data: `templates/<engine>/recipe.yaml`, read and checked |
//! | [`render`] | minijinja: recipes' expressions and files; an undefined value is an error |
//! | [`matrix`] | `Manifest` to cells: products, excludes, stable order |
//! | [`plan`] | cells to steps with content keys; fresh, cached or stale, and why |
//! | [`store`] | outputs by key, run folders, event log, records, locks |
//! | [`process`] | external commands: argument list, log files, time limit, process group |
//! | [`hub`] | models of a Hugging Face hub, whole or not at all |
//! | [`dummy`] | models made here: random weights, a real tokenizer |
//! | [`kserve`] | generated gRPC messages of Triton's protocol; the descriptors of its model configuration |
//! | [`engine`] | the embedded CPU engine: quantize, build, serve |
//! | [`workload`] | prompts out of files or made here, exact under the model's tokenizer |
//! | [`load`] | clients for HTTP and gRPC, and the loops that drive them |
//! | [`null`] | a server without a model, on an exact timetable: what a client adds to it is the client's |
//! | [`observe`] | a server's own metrics, and what it takes of the host, while it is measured |
//! | [`stats`] | records to summaries |
//! | [`report`] | rows to CSV, JSON and tables |
//! | [`exec`] | runs a plan: steps, leases, cancellation |
//! | [`progress`] | events to terminal lines |
//! | [`cli`] | arguments to settings, one call per subcommand, error text, exit codes |

pub mod base;
pub mod cli;
pub mod dummy;
pub mod engine;
pub mod event;
pub mod exec;
pub mod hub;
pub mod kserve;
pub mod load;
pub mod manifest;
pub mod matrix;
pub mod null;
pub mod observe;
pub mod plan;
pub mod process;
pub mod progress;
pub mod recipe;
pub mod record;
pub mod render;
pub mod report;
pub mod spec;
pub mod stats;
pub mod store;
pub mod workload;
