//! The Grafana dashboard, made from the list of panels below: `dashboards/capturer.json`. Each panel says what it shows and
//! which runbook to open. The first row is empty when all is well.

use serde_json::{Value, json};

use crate::reference::RUNBOOKS;

/// How a panel shows its numbers.
#[derive(Clone, Copy, PartialEq)]
enum Shape {
    /// Lines over time.
    Lines,
    /// A table of what is not well: empty when nothing is.
    Trouble,
    /// A histogram over time.
    Heat,
}

/// One panel: title, shape, unit as Grafana names it, runbook, description, and per query its legend.
type Panel =
    (&'static str, Shape, &'static str, &'static str, &'static str, &'static [(&'static str, &'static str)]);

use Shape::{Heat, Lines, Trouble};

const ROWS: &[(&str, &[Panel])] = &[
    (
        "Needs attention: empty when all is well",
        &[
            (
                "Losses",
                Trouble,
                "short",
                "losses",
                "Lines that were lost in the time shown, by reason. The health of `losses` names containers and cures.",
                &[(
                    "sum by (instance, reason) (increase(log_capturer_losses_total{$host}[$__range])) > 0",
                    "{{instance}} {{reason}}",
                )],
            ),
            (
                "Unhealthy components",
                Trouble,
                "short",
                "component-unhealthy",
                "Components that need attention. /health names the cause of each and what to do.",
                &[("log_capturer_component_health{$host} == 0", "{{instance}} {{component}}")],
            ),
            (
                "Leaks",
                Trouble,
                "short",
                "leak",
                "Resources that the agent holds more of than its work explains.",
                &[("log_capturer_leak_detection{$host} == 1", "{{instance}} {{resource}}")],
            ),
            (
                "Stuck streams",
                Trouble,
                "short",
                "stuck-stream",
                "Streams with something to read that read nothing, although no sink holds them up.",
                &[("log_capturer_streams_stuck{$host} > 0", "{{instance}}")],
            ),
            (
                "Sources that cannot be read",
                Trouble,
                "short",
                "sources-unreadable",
                "Files and directories that should be read but can't be, by reason.",
                &[(
                    "sum by (instance, reason) (log_capturer_sources_unreadable{$host}) > 0",
                    "{{instance}} {{reason}}",
                )],
            ),
        ],
    ),
    (
        "Throughput",
        &[
            (
                "Lines read",
                Lines,
                "cps",
                "lag-growing",
                "Log records read per second from all sources, each counted once.",
                &[(
                    "sum by (instance) (rate(log_capturer_logs_processed_total{$host}[$__rate_interval]))",
                    "{{instance}}",
                )],
            ),
            (
                "Lines delivered, by sink",
                Lines,
                "cps",
                "sink-failing",
                "Records that were written, or that Loki accepted. What is only in the spool does not count.",
                &[(
                    "sum by (instance, sink) (rate(log_capturer_delivered_lines_total{$host, $sink}[$__rate_interval]))",
                    "{{instance}} {{sink}}",
                )],
            ),
            (
                "Bytes read and handed to sinks",
                Lines,
                "Bps",
                "lag-growing",
                "Bytes of messages per second: read, and acknowledged by each sink (for Loki: written to its spool).",
                &[
                    (
                        "sum by (instance) (rate(log_capturer_log_bytes_processed_total{$host}[$__rate_interval]))",
                        "{{instance}} read",
                    ),
                    (
                        "sum by (instance, sink) (rate(log_capturer_log_bytes_sent_total{$host, $sink}[$__rate_interval]))",
                        "{{instance}} {{sink}}",
                    ),
                ],
            ),
            (
                "Behind",
                Lines,
                "bytes",
                "lag-growing",
                "Bytes on disk that a sink has not acknowledged yet, and bytes of deleted files that are held open for them.",
                &[
                    ("log_capturer_capture_lag_bytes{$host}", "{{instance}} on disk"),
                    ("log_capturer_deleted_open_bytes{$host}", "{{instance}} deleted, held open"),
                ],
            ),
            (
                "Age of the oldest line on its way",
                Lines,
                "s",
                "lag-growing",
                "Age of the oldest record that was read and is not acknowledged yet.",
                &[("log_capturer_capture_lag_seconds{$host}", "{{instance}}")],
            ),
            (
                "Losses over time",
                Lines,
                "short",
                "losses",
                "Losses declared, by the sink that did not get the lines.",
                &[(
                    "sum by (instance, sink) (increase(log_capturer_sink_losses_total{$host, $sink}[$__rate_interval]))",
                    "{{instance}} {{sink}}",
                )],
            ),
        ],
    ),
    (
        "Sources",
        &[
            (
                "Ten busiest sources",
                Lines,
                "Bps",
                "lag-growing",
                "Bytes read per second by container or file. `other` are those beyond metrics.max_containers.",
                &[(
                    "topk(10, rate(log_capturer_source_bytes_total{$host, $container}[$__rate_interval]))",
                    "{{container_name}}{{path}}",
                )],
            ),
            (
                "Ten sources furthest behind",
                Lines,
                "bytes",
                "lag-growing",
                "Bytes on disk that a sink has not acknowledged, by container or file.",
                &[(
                    "topk(10, log_capturer_source_lag_bytes{$host, $container} > 0)",
                    "{{container_name}}{{path}}",
                )],
            ),
            (
                "Ten quietest sources",
                Lines,
                "s",
                "stuck-stream",
                "Seconds since a source's last line. A container that usually prints and is listed here is worth a look.",
                &[(
                    "topk(10, time() - log_capturer_source_last_line_timestamp_seconds{$host, $container})",
                    "{{container_name}}{{path}}",
                )],
            ),
            (
                "Streams by state",
                Lines,
                "short",
                "stuck-stream",
                "Sources by the state of their stream. `capturer top` shows what waiting ones wait for.",
                &[
                    ("sum by (state) (log_capturer_streams{$host})", "{{state}}"),
                    ("sum(log_capturer_containers_monitored{$host})", "running containers"),
                ],
            ),
            (
                "Rotations by container",
                Lines,
                "short",
                "watch-rotations",
                "Planned reconnects in ten minutes. At the default interval a busy container has two.",
                &[(
                    "topk(10, increase(log_capturer_container_stream_rotations_total{$host, $container}[10m]))",
                    "{{container_name}}",
                )],
            ),
            (
                "Age of streams when closed",
                Heat,
                "s",
                "watch-rotations",
                "How old connections were when they were closed. Anything beyond the rotation interval is late.",
                &[(
                    "sum by (le) (increase(log_capturer_container_stream_age_seconds_bucket{$host}[$__rate_interval]))",
                    "{{le}}",
                )],
            ),
            (
                "Stream errors by type",
                Lines,
                "short",
                "stream-errors",
                "Errors of container streams. `pool_full` only means that a container waits for its turn.",
                &[(
                    "sum by (error_type) (increase(log_capturer_container_stream_errors_total{$host}[$__rate_interval])) > 0",
                    "{{error_type}}",
                )],
            ),
            (
                "Use of the pool",
                Lines,
                "percentunit",
                "pool-nearly-full",
                "Used share of the slots for streams over the API.",
                &[("log_capturer_container_stream_pool_utilization{$host}", "{{instance}}")],
            ),
            (
                "Pipeline outcomes",
                Lines,
                "cps",
                "pipelines",
                "Lines per second that entered a pipeline, and what its steps did to them. If as many are dropped as entered, nothing gets through.",
                &[
                    (
                        "sum by (pipeline) (rate(log_capturer_pipeline_lines_in_total{$host, $sink}[$__rate_interval]))",
                        "{{pipeline}} came",
                    ),
                    (
                        "sum by (pipeline, step, outcome) (rate(log_capturer_pipeline_lines_total{$host, $sink}[$__rate_interval])) > 0",
                        "{{pipeline}} {{step}} {{outcome}}",
                    ),
                ],
            ),
        ],
    ),
    (
        "Loki and other sinks",
        &[
            (
                "Answers of Loki",
                Lines,
                "reqps",
                "pushes-refused",
                "Requests per second, and failed ones by reason. Failed ones are sent again.",
                &[
                    (
                        "sum by (instance) (rate(log_capturer_push_requests_total{$host, $sink}[$__rate_interval]))",
                        "{{instance}} all",
                    ),
                    (
                        "sum by (instance, reason) (rate(log_capturer_push_failures_total{$host, $sink}[$__rate_interval])) > 0",
                        "{{instance}} {{reason}}",
                    ),
                ],
            ),
            (
                "How long Loki takes",
                Lines,
                "s",
                "pushes-refused",
                "Median and 99th percentile of the time until a request is answered.",
                &[
                    (
                        "histogram_quantile(0.5, sum by (le) (rate(log_capturer_push_duration_seconds_bucket{$host, $sink}[$__rate_interval])))",
                        "median",
                    ),
                    (
                        "histogram_quantile(0.99, sum by (le) (rate(log_capturer_push_duration_seconds_bucket{$host, $sink}[$__rate_interval])))",
                        "99 %",
                    ),
                ],
            ),
            (
                "Fill of the spool",
                Lines,
                "percentunit",
                "spool-filling",
                "Share of the spool that is used. When it is full, reading for Loki waits or the oldest lines are dropped (spool.when_full).",
                &[(
                    "log_capturer_spool_bytes{$host, $sink} / log_capturer_spool_limit_bytes{$host, $sink}",
                    "{{instance}} {{sink}}",
                )],
            ),
            (
                "Age of the spool",
                Lines,
                "s",
                "spool-filling",
                "Age of the oldest line in the spool that was not delivered yet.",
                &[("log_capturer_spool_lag_seconds{$host, $sink}", "{{instance}} {{sink}}")],
            ),
            (
                "Dead letters by reason",
                Lines,
                "short",
                "dead-letters",
                "Lines that Loki refused for good. capturer dead-letters shows them with Loki's own words.",
                &[(
                    "sum by (reason) (increase(log_capturer_dead_letters_total{$host, $sink}[$__rate_interval])) > 0",
                    "{{reason}}",
                )],
            ),
            (
                "Batches waiting, errors and blocked outputs",
                Lines,
                "short",
                "sink-failing",
                "Batches handed to a sink and not acknowledged; failed attempts; outputs that can't be written to.",
                &[
                    ("log_capturer_sink_batches_waiting{$host, $sink}", "{{instance}} {{sink}} waiting"),
                    (
                        "increase(log_capturer_sink_errors_total{$host, $sink}[$__rate_interval]) > 0",
                        "{{instance}} {{sink}} errors",
                    ),
                    ("log_capturer_outputs_blocked{$host, $sink} > 0", "{{instance}} {{sink}} blocked"),
                ],
            ),
        ],
    ),
    (
        "The agent itself",
        &[
            (
                "Descriptors by owner, and drift",
                Lines,
                "short",
                "descriptor-drift",
                "Open descriptors by the part that holds them, and the difference between the kernel's count and the agent's.",
                &[
                    ("sum by (owner) (log_capturer_kernel_fds_open{$host})", "{{owner}}"),
                    ("log_capturer_kernel_fd_drift{$host}", "{{instance}} drift"),
                ],
            ),
            (
                "Tasks, operations, threads",
                Lines,
                "short",
                "tasks-grow",
                "What must not grow with time: tasks of the loop, operations in the kernel, threads.",
                &[
                    ("log_capturer_tasks{$host}", "{{instance}} tasks"),
                    ("log_capturer_operations_in_flight{$host}", "{{instance}} operations"),
                    ("log_capturer_threads{$host}", "{{instance}} threads"),
                ],
            ),
            (
                "Memory and buffers",
                Lines,
                "bytes",
                "memory-grows",
                "Resident memory, and how much of it is buffers in use.",
                &[
                    ("log_capturer_resident_memory_bytes{$host}", "{{instance}} resident"),
                    ("log_capturer_buffer_bytes{$host}", "{{instance}} buffers"),
                ],
            ),
            (
                "Processor time",
                Lines,
                "percentunit",
                "lag-growing",
                "Processors used; 1 is one whole processor.",
                &[("rate(log_capturer_process_cpu_seconds_total{$host}[$__rate_interval])", "{{instance}}")],
            ),
            (
                "Reloads",
                Lines,
                "short",
                "config-refused",
                "Reloads by outcome.",
                &[(
                    "sum by (instance, result) (increase(log_capturer_config_reloads_total{$host}[$__rate_interval])) > 0",
                    "{{instance}} {{result}}",
                )],
            ),
            (
                "Turns of tasks",
                Lines,
                "ops",
                "capture-stalled",
                "Turns per second of each long-lived task. A task at 0 is stuck.",
                &[(
                    "sum by (task) (rate(log_capturer_task_heartbeats_total{$host}[$__rate_interval]))",
                    "{{task}}",
                )],
            ),
        ],
    ),
];

/// Every query of the dashboard, as Prometheus gets it when a person has chosen nothing.
pub fn queries() -> Vec<String> {
    let panels = ROWS.iter().flat_map(|(_, panels)| *panels);
    let raw = panels.flat_map(|panel| panel.5).map(|(query, _)| (*query).to_owned());
    raw.map(|query| {
        let chosen = with_variables(&query);
        let chosen =
            ["$host", "$sink", "$container"].iter().fold(chosen, |text, name| text.replace(name, ".*"));
        chosen.replace("$__rate_interval", "5m").replace("$__range", "1h")
    })
    .collect()
}

/// Runbooks that panels lead to.
pub fn runbooks() -> Vec<&'static str> {
    ROWS.iter().flat_map(|(_, panels)| *panels).map(|panel| panel.3).collect()
}

/// `$host` and the like stand for whole matchers in the list above.
fn with_variables(query: &str) -> String {
    query
        .replace("{$host", "{instance=~\"$host\"")
        .replace(", $sink}", ", sink=~\"$sink\"}")
        .replace(", $container}", ", container_name=~\"$container\"}")
}

/// The whole file.
pub fn json() -> String {
    let (mut panels, mut id, mut y) = (Vec::new(), 0, 0);
    for (title, row) in ROWS {
        id += 1;
        panels.push(json!({
            "id": id, "type": "row", "title": title, "collapsed": false, "panels": [],
            "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}
        }));
        y += 1;
        let trouble = row[0].1 == Trouble;
        let (across, height) = if trouble { (row.len() as u64, 5) } else { (3, 8) };
        for (index, panel) in row.iter().enumerate() {
            id += 1;
            let (column, line) = (index as u64 % across, index as u64 / across);
            let width = 24 / across;
            panels.push(of(
                panel,
                id,
                json!({"x": column * width, "y": y + line * height, "w": width, "h": height}),
            ));
        }
        y += (row.len() as u64).div_ceil(across) * height;
    }
    let variable = |name: &str, label: &str, query: &str| {
        json!({
            "name": name, "label": label, "type": "query", "datasource": {"type": "prometheus", "uid": "${datasource}"},
            "query": {"query": query, "refId": name}, "refresh": 2, "sort": 1, "multi": true, "includeAll": true,
            "allValue": ".*", "current": {"text": "All", "value": "$__all"}
        })
    };
    let dashboard = json!({
        "uid": "capturer", "title": "capturer", "tags": ["capturer", "logs"], "schemaVersion": 39, "version": 1,
        "timezone": "browser", "refresh": "30s", "time": {"from": "now-6h", "to": "now"}, "editable": true,
        "description": "Made by cargo xtask docs from tests/src/dashboard.rs; changes made here are lost with the next version.",
        "templating": {"list": [
            {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
            variable("host", "Host", "label_values(log_capturer_build_info, instance)"),
            variable("container", "Container", "label_values(log_capturer_source_lines_total{instance=~\"$host\"}, container_name)"),
            variable("sink", "Sink", "label_values(log_capturer_logs_sent_total{instance=~\"$host\"}, sink)"),
        ]},
        "panels": panels,
    });
    serde_json::to_string_pretty(&dashboard).expect("JSON of JSON") + "\n"
}

fn of(panel: &Panel, id: u64, place: Value) -> Value {
    let (title, shape, unit, runbook, description, queries) = *panel;
    let targets: Vec<Value> = queries
        .iter()
        .enumerate()
        .map(|(index, (query, legend))| {
            let letter = char::from(b'A' + index as u8).to_string();
            json!({
                "refId": letter, "expr": with_variables(query), "legendFormat": legend,
                "instant": shape == Trouble, "range": shape != Trouble,
                "format": if shape == Heat { "heatmap" } else { "time_series" },
                "datasource": {"type": "prometheus", "uid": "${datasource}"}
            })
        })
        .collect();
    let kind = match shape {
        Lines => "timeseries",
        Trouble => "stat",
        Heat => "heatmap",
    };
    let colour = if shape == Trouble {
        json!({"mode": "fixed", "fixedColor": "red"})
    } else {
        json!({"mode": "palette-classic"})
    };
    let options = match shape {
        Trouble => {
            json!({"textMode": "value_and_name", "colorMode": "background", "reduceOptions": {"calcs": ["lastNotNull"]}})
        }
        Heat => json!({"calculate": false}),
        Lines => {
            json!({"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}})
        }
    };
    json!({
        "id": id, "type": kind, "title": title, "gridPos": place,
        "description": format!("{description}\n\nRunbook: `{RUNBOOKS}{runbook}.md`"),
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "fieldConfig": {"defaults": {"unit": unit, "color": colour, "noValue": if shape == Trouble { "none" } else { "" }}, "overrides": []},
        "options": options,
        "targets": targets,
    })
}
