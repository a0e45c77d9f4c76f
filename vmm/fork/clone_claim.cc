#include "vmm/fork/clone_claim.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "vmm/config/validate.h"
#include "vmm/control/runtime_dir.h"
#include "vmm/fork/clone_record.h"
#include "vmm/overlay/mount_table.h"

namespace ivmm {
namespace {

bool is_same_folder(int fd, const std::string& path) {
    struct stat opened {};
    struct stat named {};
    return ::fstat(fd, &opened) == 0 && ::lstat(path.c_str(), &named) == 0 &&
           opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

}  // namespace

Result<CloneClaim> CloneClaim::take(const std::string& clone) {
    IVMM_TRY(check_guest_name(clone));
    IVMM_TRY(RuntimeDir::find().create());
    const std::string folder = clone_folder(clone);
    while (true) {
        if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
            const int code = errno;
            return fail_as(ErrorKind::kHost, "cannot create the folder '{}': {}", folder,
                           error_text(code));
        }
        UniqueFd lock(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
        if (!lock || ::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
            const int code = errno;
            if (code == ENOENT) {
                continue;  // whoever had the claim has removed it
            }
            if (code == EWOULDBLOCK) {
                return fail("clone '{}' is being made or removed at this moment; try again later",
                            clone);
            }
            return fail_as(ErrorKind::kHost, "cannot use the folder '{}': {}", folder,
                           error_text(code));
        }
        if (is_same_folder(lock.get(), folder)) {
            IVMM_ASSIGN(auto resolved, overlay::resolve(folder));
            return CloneClaim(std::move(resolved), std::move(lock));
        }
    }
}

}  // namespace ivmm
