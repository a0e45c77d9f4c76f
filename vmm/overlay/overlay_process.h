#pragma once

#include "storage/fuse/server.h"

namespace ivmm::overlay {

/// Serves an overlay from this process until its last mount has gone or a SIGTERM, SIGINT or SIGHUP
/// comes, which unmounts. Prints a line on standard output when it is there. The process has one
/// thread; all paths are absolute. Returns the exit code; errors have been printed.
int serve_in_foreground(const storage::OverlayServer::Options& options);

/// Starts a process that does so without a terminal, and returns when the mount is there. What it
/// has to say later goes to a log file beside its control socket. Same conditions.
int serve_in_background(const storage::OverlayServer::Options& options);

}  // namespace ivmm::overlay
