#pragma once

#include <sys/ioctl.h>

#include "base/result.h"

namespace ivmm {

/// ioctl(2) that is repeated on EINTR and names the request when it fails.
template <class Argument>
Result<int> kvm_ioctl(int fd, unsigned long request, Argument argument, const char* request_name) {
    int result = 0;
    do {
        result = ::ioctl(fd, request, argument);
    } while (result < 0 && errno == EINTR);
    if (result < 0) {
        return fail_errno("{}", request_name);
    }
    return result;
}

}  // namespace ivmm

/// kvm_ioctl() with the request's own name for the message.
#define IVMM_IOCTL(fd, request, argument) ::ivmm::kvm_ioctl(fd, request, argument, #request)
