#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"

struct MHD_Daemon;

namespace ivmm::live {

/// What a GET is answered with.
struct Page {
    std::string type;  ///< "text/html; charset=utf-8"
    std::string body;
};

/// Answers GETs over HTTP/1.1, one after the other, on a thread of its own (libmicrohttpd). At most
/// 64 clients, each with a small request, and ten seconds of silence. Whose Host is a name that
/// is neither "localhost" nor one of `names` is refused, so that a web page from elsewhere cannot
/// reach the server through a name of its own (DNS rebinding).
class HttpServer {
 public:
    struct Options {
        std::string address;             ///< "HOST:PORT"; port 0: any that is free
        bool anyone = false;             ///< the address need not be a loopback one
        std::vector<std::string> names;  ///< by which this host is called
    };
    /// Errors: there is no such page (kUsage), or it cannot be made. On the server's thread.
    using Handler = std::function<Result<Page>(const std::string& path)>;

    /// Errors: the address is not one of this host, is in use, or others could reach it (kUsage).
    static Result<std::unique_ptr<HttpServer>> start(const Options& options, Handler handler);
    HttpServer(const HttpServer&) = delete;
    HttpServer& operator=(const HttpServer&) = delete;
    ~HttpServer();

    /// Where it listens: "127.0.0.1:9477".
    const std::string& address() const { return address_; }

 private:
    struct Callbacks;
    HttpServer(std::vector<std::string> names, Handler handler)
        : names_(std::move(names)), handler_(std::move(handler)) {}
    bool knows_host(std::string_view host) const;

    const std::vector<std::string> names_;
    const Handler handler_;
    std::string address_;
    MHD_Daemon* daemon_ = nullptr;
};

/// Serves until SIGINT, SIGTERM or SIGHUP. `what`: for the line that says where, on standard
/// output.
Result<void> serve_pages(const HttpServer::Options& options, const char* what,
                         HttpServer::Handler handler);

}  // namespace ivmm::live
