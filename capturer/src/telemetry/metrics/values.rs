//! Labels with a closed set of values: why, how and what each counter tells apart.

use crate::text::label_values::label_values;

label_values! {
    /// `error_type` of `container_stream_errors_total`.
    StreamError {
        /// All slots were taken; the container waits for its turn and keeps its position.
        PoolFull = "pool_full",
        /// The file or connection could not be opened.
        OpenFailed = "open_failed",
        /// A read ended with an error.
        ReadFailed = "read_failed",
        /// No byte came in time although the source was growing.
        ReadTimeout = "read_timeout",
        /// A connection did not close when it should have.
        RotationStuck = "rotation_stuck",
        /// The Engine answered with an error status or an error frame.
        ApiError = "api_error",
        /// The Engine's connection ended without a last chunk, or it refuses connections.
        DaemonGone = "daemon_gone",
        /// The container's logging driver keeps nothing that can be read.
        DriverUnreadable = "driver_unreadable",
        /// The stream failed so often that it is paused.
        CircuitOpen = "circuit_open",
        /// The stream brought nothing while its container's log grew.
        Stalled = "stalled",
        /// A read of a file did not come back, as on a hung network file system.
        FileHung = "file_hung",
    }
}

label_values! {
    /// `reason` of `push_failures_total`: why a request will be sent again.
    PushFailure {
        /// 429: the tenant sends more than Loki takes.
        RateLimited = "rate_limited",
        /// 429: one label set brings more than Loki takes of it.
        StreamRateLimited = "stream_rate_limited",
        /// 429: too many label sets.
        StreamLimit = "stream_limit",
        /// 5xx: Loki, or what stands before it, has trouble of its own.
        ServerError = "server_error",
        /// No connection could be made.
        Unreachable = "unreachable",
        /// The certificate, ours or theirs, was not accepted.
        Tls = "tls",
        /// No answer in time.
        TimedOut = "timed_out",
        /// The connection broke, or what came was no HTTP.
        BrokenAnswer = "broken_answer",
        /// 401: Loki does not know who asks.
        Unauthorized = "unauthorized",
        /// 403: who asks may not push.
        Forbidden = "forbidden",
        /// 404: there is no push API at this address.
        NotFound = "not_found",
        /// 260: Loki is told to take nothing of this tenant.
        TenantBlocked = "tenant_blocked",
        /// 400: this Loki takes no structured metadata.
        MetadataDisallowed = "metadata_disallowed",
        /// A status that Loki's push API does not have.
        Unexpected = "unexpected",
        /// A refused line could not be written to the dead letters.
        DeadLettersUnwritable = "dead_letters_unwritable",
    }
}

label_values! {
    /// `reason` of `dead_letters_total`: why a line will never be taken.
    DeadLetterReason {
        /// Older than Loki takes at all (`reject_old_samples_max_age`).
        TooOld = "too_old",
        /// Too far behind the newest line of its label set.
        TooFarBehind = "too_far_behind",
        /// Older than the newest line, in a Loki that takes none such.
        OutOfOrder = "out_of_order",
        /// Newer than Loki's clock allows (`creation_grace_period`).
        TooFarInFuture = "too_far_in_future",
        /// Longer than `max_line_size`.
        LineTooLong = "line_too_long",
        /// More labels than `max_label_names_per_series`.
        TooManyLabels = "too_many_labels",
        /// Longer than `max_label_name_length`.
        LabelNameTooLong = "label_name_too_long",
        /// Longer than `max_label_value_length`.
        LabelValueTooLong = "label_value_too_long",
        /// A label twice.
        DuplicateLabel = "duplicate_label",
        /// Labels that Loki can't read or that lack one it wants.
        InvalidLabels = "invalid_labels",
        /// More structured metadata than Loki takes.
        MetadataTooLarge = "metadata_too_large",
        /// A single line that is too large for a request.
        BodyTooLarge = "body_too_large",
        /// A firewall or proxy before Loki refuses what the line says (403 and the like), while it takes others of the tenant.
        Forbidden = "forbidden",
        /// A reason that is not known by name; the dead letter holds the server's words.
        Other = "other",
    }
}

label_values! {
    /// `reason` of `skipped_records_total`.
    SkipReason {
        /// A record without its end, as a crash or a full disk leaves it.
        TornRecord = "torn_record",
        /// A raw record longer than the program's bound.
        RecordTooLong = "record_too_long",
        /// Not a record in the format the source should have.
        RecordInvalid = "record_invalid",
        /// Frame header with an impossible type or length.
        FrameInvalid = "frame_invalid",
        /// A frame that carries the daemon's own error, not a line.
        DaemonErrorFrame = "daemon_error_frame",
        /// A run of NUL bytes, as a truncation from outside leaves it.
        NulHole = "nul_hole",
    }
}

label_values! {
    /// `reason` of `lost_bytes_total`.
    LossReason {
        /// A file was deleted before it was read to its end.
        FileGoneUnread = "file_gone_unread",
        /// A rotated file could not be read, and was removed before it could.
        FileUnreadable = "file_unreadable",
        /// A file was truncated behind the position.
        FileTruncated = "file_truncated",
        /// The Engine skipped a rotated file in its answer.
        EngineSkippedRotation = "engine_skipped_rotation",
        /// A record was damaged on disk.
        RecordDamaged = "record_damaged",
        /// A raw record was longer than the program's bound.
        RecordTooLong = "record_too_long",
        /// A compressed file could not be decompressed to its end.
        ArchiveDamaged = "archive_damaged",
        /// The bound on held-open deleted files was reached.
        DeletedOpenLimit = "deleted_open_limit",
        /// A file was made and removed before it could be opened.
        FileNeverOpened = "file_never_opened",
        /// Docker's disk was full, so dockerd could not write what containers printed.
        DockerDiskFull = "docker_disk_full",
        /// A container was removed before anything of it could be read.
        ContainerGoneUnread = "container_gone_unread",
        /// A part of a sink's spool could not be read back.
        SpoolDamaged = "spool_damaged",
        /// A full spool gave up its oldest lines, as configured.
        SpoolFull = "spool_full",
        /// Lines waited in a spool for longer than its max_age.
        SpoolTooOld = "spool_too_old",
        /// Old dead letters made room for new ones.
        DeadLettersFull = "dead_letters_full",
    }
}

label_values! {
    /// `reason` of `sources_unreadable`.
    UnreadableReason {
        /// No right to read it.
        Permission = "permission",
        /// Not a regular file, or reached through a link.
        NotRegular = "not_regular",
        /// Its directory is not there.
        NoDirectory = "no_directory",
        /// A directory can't be listed, so nobody knows what is in it.
        Unlistable = "unlistable",
        /// All file descriptors that sources may have are in use.
        NoDescriptor = "no_descriptor",
        /// It is not text and is left out.
        Binary = "binary",
        /// Its text is of no encoding that is known for it.
        Undecodable = "undecodable",
        /// The container's logging driver keeps nothing that can be read.
        Driver = "driver",
        /// The container runs, and its log file was removed.
        Missing = "missing",
        /// Anything else; health has the words.
        Other = "other",
    }
}

label_values! {
    /// `result` of `docker_requests_total`.
    RequestResult {
        /// 2xx: the Engine answered.
        Ok = "ok",
        /// 404: the container is gone.
        NotFound = "not_found",
        /// Any other status.
        Refused = "refused",
        /// No answer in time.
        TimedOut = "timed_out",
        /// No connection, or it broke.
        Unreachable = "unreachable",
        /// An answer that is not what the API promises, or too large.
        Invalid = "invalid",
    }
}

label_values! {
    /// `result` of `config_reloads_total`.
    ReloadResult {
        /// A new run has begun, or the log's level was set.
        Applied = "applied",
        /// The settings are those in use.
        Unchanged = "unchanged",
        /// The config is wrong, or needs a restart.
        Refused = "refused",
        /// The config looked good and could not be started; the one before runs again.
        Failed = "failed",
    }
}

label_values! {
    /// `reason` of `paths_passed_over`.
    PassedOver {
        /// A directory where a file was expected.
        Directory = "directory",
        /// A symbolic link that a pattern found.
        Link = "link",
        /// A link whose target is not there.
        Dangling = "dangling_link",
        /// A link that leads in a circle.
        LinkLoop = "link_loop",
        /// A link that leads out of `roots`.
        OutOfRoots = "out_of_roots",
        /// A socket, pipe or device.
        Special = "special",
        /// A file of the agent.
        Own = "own",
        /// Left out by `exclude`.
        Excluded = "excluded",
        /// Its name begins with a dot.
        Hidden = "hidden",
        /// Compressed, and its log is not there.
        Archive = "archive",
        /// A rotated file of a log that is followed.
        Rotated = "rotated",
        /// No right to read it.
        Denied = "denied",
        /// A file that is not text.
        Binary = "binary",
        /// Last changed longer ago than `ignore_older`, and never read before.
        Older = "older",
    }
}
