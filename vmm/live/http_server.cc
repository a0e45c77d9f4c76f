#include "vmm/live/http_server.h"

#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdarg>
#include <cstdio>

#include "base/ascii.h"
#include "base/log.h"
#include "base/printable.h"
#include "net/address.h"
#include "vmm/cli/cli.h"
#include "vmm/cli/signals.h"
#include "vmm/peer/tls_stream.h"

namespace ivmm::live {
namespace {

constexpr unsigned kMostClients = 64;
constexpr unsigned kSilenceSeconds = 10;
constexpr size_t kClientMemory = size_t{32} << 10;

/// Nothing from elsewhere, nothing inline; and nobody else may show or read the pages.
constexpr std::array<std::array<const char*, 2>, 6> kHeaders = {{
    {"Content-Security-Policy",
     "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src "
     "'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
    {"X-Content-Type-Options", "nosniff"},
    {"X-Frame-Options", "DENY"},
    {"Referrer-Policy", "no-referrer"},
    {"Cross-Origin-Resource-Policy", "same-origin"},
    {"Cache-Control", "no-store"},
}};

struct Listening {
    std::string address;
    bool is_loopback = false;
};

Result<Listening> look_at(int socket) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    std::array<char, NI_MAXHOST> host{};
    std::array<char, NI_MAXSERV> port{};
    if (::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0 ||
        ::getnameinfo(reinterpret_cast<const sockaddr*>(&address), size, host.data(), host.size(),
                      port.data(), port.size(), NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        return fail_errno("cannot tell where the server listens");
    }
    const std::string name = host.data();
    const bool is_v6 = address.ss_family == AF_INET6;
    return Listening{
        is_v6 ? fmt::format("[{}]:{}", name, port.data()) : fmt::format("{}:{}", name, port.data()),
        is_v6 ? name == "::1" : name.starts_with("127.")};
}

/// The name in a Host header, without the port, in lower case.
std::string host_name(std::string_view host) {
    std::string name(host);
    const size_t bracket = name.rfind(']');
    const size_t colon = name.rfind(':');
    if (colon != name.npos && (bracket == name.npos || colon > bracket)) {
        name.resize(colon);
    }
    if (name.size() > 2 && name.front() == '[' && name.back() == ']') {
        name = name.substr(1, name.size() - 2);
    }
    std::ranges::transform(name, name.begin(), lower);
    return name;
}

MHD_Result answer(MHD_Connection* connection, unsigned status, const Page& page) {
    MHD_Response* const response = MHD_create_response_from_buffer(
        page.body.size(),
        const_cast<char*>(page.body.data()),  // NOLINT(*-const-cast): it is copied
        MHD_RESPMEM_MUST_COPY);
    if (response == nullptr) {
        return MHD_NO;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, page.type.c_str());
    for (const auto& [name, value] : kHeaders) {
        MHD_add_response_header(response, name, value);
    }
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED) {
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    }
    const MHD_Result queued = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return queued;
}

MHD_Result refuse(MHD_Connection* connection, unsigned status, std::string reason) {
    return answer(connection, status, {"text/plain; charset=utf-8", std::move(reason) + "\n"});
}

void take_log(void* /*unused*/, const char* format, va_list arguments) {
    std::array<char, 256> text{};
    // NOLINTNEXTLINE(*-vararg, clang-analyzer-valist.Uninitialized): the library's own arguments
    std::vsnprintf(text.data(), text.size(), format, arguments);
    log::debug("web server: {}", printable(text.data()));
}

}  // namespace

struct HttpServer::Callbacks {
    static MHD_Result serve(void* self, MHD_Connection* connection, const char* url,
                            const char* method, const char* /*version*/, const char* /*upload*/,
                            size_t* upload_size, void** /*state*/) {
        const auto& server = *static_cast<const HttpServer*>(self);
        const std::string_view verb = method;
        if (verb != MHD_HTTP_METHOD_GET && verb != MHD_HTTP_METHOD_HEAD) {
            // The rest of such a request is not waited for.
            *upload_size = 0;
            return refuse(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "This server is read-only.");
        }
        const char* const host =
            MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_HOST);
        if (host == nullptr || !server.knows_host(host)) {
            return refuse(connection, MHD_HTTP_MISDIRECTED_REQUEST,
                          "This server does not go by that name: use its address, localhost, or "
                          "start it with --host-name.");
        }
        const auto page = server.handler_(url);
        if (page) {
            return answer(connection, MHD_HTTP_OK, *page);
        }
        return refuse(connection,
                      page.error().kind == ErrorKind::kUsage ? MHD_HTTP_NOT_FOUND
                                                             : MHD_HTTP_INTERNAL_SERVER_ERROR,
                      page.error().message);
    }
};

bool HttpServer::knows_host(std::string_view host) const {
    const std::string name = host_name(host);
    // Addresses cannot be rebound.
    return name == "localhost" || net::parse_ip(name) || std::ranges::count(names_, name) > 0;
}

Result<std::unique_ptr<HttpServer>> HttpServer::start(const Options& options, Handler handler) {
    IVMM_ASSIGN(auto socket, peer::listen_at(options.address));
    IVMM_ASSIGN(const auto listening, look_at(socket.get()));
    if (!listening.is_loopback && !options.anyone) {
        return fail_as(ErrorKind::kUsage,
                       "{}: whoever reaches this address could read all of it, without a password; "
                       "use 127.0.0.1 (and ssh -L from elsewhere), or add --anyone",
                       options.address);
    }
    std::unique_ptr<HttpServer> server(new HttpServer(options.names, std::move(handler)));
    server->address_ = listening.address;
    server->daemon_ = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ERROR_LOG, 0, nullptr, nullptr, &Callbacks::serve,
        server.get(), MHD_OPTION_EXTERNAL_LOGGER, &take_log, nullptr, MHD_OPTION_LISTEN_SOCKET,
        socket.get(), MHD_OPTION_CONNECTION_LIMIT, kMostClients, MHD_OPTION_CONNECTION_TIMEOUT,
        kSilenceSeconds, MHD_OPTION_CONNECTION_MEMORY_LIMIT, kClientMemory, MHD_OPTION_END);
    if (server->daemon_ == nullptr) {
        return fail_errno("cannot start a web server at {}", options.address);
    }
    socket.release();  // it is the daemon's
    return server;
}

HttpServer::~HttpServer() {
    if (daemon_ != nullptr) {
        MHD_stop_daemon(daemon_);
    }
}

Result<void> serve_pages(const HttpServer::Options& options, const char* what,
                         HttpServer::Handler handler) {
    const EndSignals blocked;
    IVMM_ASSIGN(const auto signals, EndSignals::open());
    IVMM_ASSIGN(const auto server, HttpServer::start(options, std::move(handler)));
    cli::print("{} at http://{}/ (process {})\n", what, server->address(), ::getpid());
    static_cast<void>(std::fflush(stdout));
    pollfd wanted{signals.get(), POLLIN, 0};
    while (!EndSignals::take(signals.get())) {
        ::poll(&wanted, 1, -1);
    }
    return {};
}

}  // namespace ivmm::live
