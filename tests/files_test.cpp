#include "core/files.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iterator>

#include "core/error.h"
#include "core/hash.h"

namespace rep {
namespace {

namespace fs = std::filesystem;

template <class Action>
std::string error_of(Action&& action) {
  try {
    action();
  } catch (const Error& e) {
    return e.what();
  }
  return "(no error)";
}

/// An empty folder of its own for every test.
class Files : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = ::testing::TempDir() + "files_test_" + std::to_string(::getpid());
    fs::remove_all(folder_);
    fs::create_directory(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  int64_t entries() const {
    return std::distance(fs::directory_iterator(folder_), fs::directory_iterator());
  }
  std::string folder_;
};

TEST_F(Files, LeftoversOfKilledProcessesGoAndNothingElse) {
  const pid_t child = fork();
  if (child == 0) {
    AtomicFile file(path("a"));
    file.write("half");
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_EQ(entries(), 1) << "the child left a file";
  for (const char* other : {"a", "a.txt.tmp", "ab.1-2.tmp", "a.1-2.tmp.txt"}) {
    write_file_atomically(path(other), "stays");
  }
  remove_leftovers(path("a"));
  EXPECT_EQ(entries(), 4);
  EXPECT_EQ(read_file(path("a")), "stays");
}

TEST_F(Files, AtomicFileAppearsOnCommitAndNotBefore) {
  write_file_atomically(path("a"), "old");
  {
    AtomicFile file(path("a"));
    file.write("new ");
    file.write("text");
    EXPECT_EQ(read_file(path("a")), "old");
    file.commit();
    EXPECT_EQ(read_file(path("a")), "new text");
  }
  EXPECT_EQ(read_file(path("a")), "new text");
  EXPECT_EQ(entries(), 1) << "no temporary file stays";
}

TEST_F(Files, AbandonedAtomicFileLeavesTheOldOne) {
  write_file_atomically(path("a"), "old");
  { AtomicFile(path("a")).write("half"); }
  EXPECT_EQ(read_file(path("a")), "old");
  EXPECT_EQ(entries(), 1);
}

TEST_F(Files, FullDiskIsAnErrorThatKeepsTheOldFile) {
  write_file_atomically(path("a"), "old");
  // The file-size limit stands in for a full disk: write() comes back with an error either way.
  const auto write_with_limit = [&] {
    rlimit limit{};
    ::getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = 1000;
    ::setrlimit(RLIMIT_FSIZE, &limit);
    ::signal(SIGXFSZ, SIG_IGN);
    const std::string error =
        error_of([&] { write_file_atomically(path("a"), std::string(5000, 'x')); });
    const bool right = error == "cannot write '" + path("a") + "': File too large" &&
                       read_file(path("a")) == "old" && entries() == 1;
    std::_Exit(right ? 0 : 1);
  };
  EXPECT_EXIT(write_with_limit(), ::testing::ExitedWithCode(0), "");
}

TEST_F(Files, ErrorsNameThePathAndTheReason) {
  const auto write = [&](const std::string& where) {
    return error_of([&] { write_file_atomically(where, "x"); });
  };
  EXPECT_EQ(write(path("no/a")), "cannot write '" + path("no/a") + "': No such file or directory");
  EXPECT_EQ(write(folder_), "cannot write '" + folder_ + "': Is a directory");
  EXPECT_TRUE(fs::is_directory(folder_));
  EXPECT_EQ(error_of([&] { read_file(path("no")); }),
            "cannot read '" + path("no") + "': No such file or directory");
  EXPECT_EQ(error_of([&] { read_file(folder_); }), "cannot read '" + folder_ + "': Is a directory");
  EXPECT_EQ(error_of([&] { MappedFile mapped(folder_); }),
            "cannot read '" + folder_ + "': Is a directory");
  EXPECT_EQ(error_of([] { MappedFile mapped("/dev/null"); }),
            "cannot read '/dev/null': not a regular file");
}

TEST_F(Files, ReadFileHonoursItsLimit) {
  write_file_atomically(path("a"), std::string(10000, 'x'));
  EXPECT_EQ(read_file(path("a"), 10000), std::string(10000, 'x'));
  EXPECT_EQ(error_of([&] { read_file(path("a"), 9999); }),
            "'" + path("a") + "' is larger than the 9999 bytes that such a file may have");
  EXPECT_NE(error_of([] { read_file("/dev/zero", 1 << 20); }), "(no error)") << "it has no end";
  write_file_atomically(path("empty"), "");
  EXPECT_EQ(read_file(path("empty"), 0), "");
}

TEST_F(Files, MappedFileHoldsTheBytes) {
  const std::string text("a\0b", 3);
  write_file_atomically(path("a"), text);
  const MappedFile mapped(path("a"));
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(mapped.data()), mapped.size()), text);
  EXPECT_EQ(mapped.path(), path("a"));
  write_file_atomically(path("empty"), "");
  EXPECT_EQ(MappedFile(path("empty")).size(), 0u);
}

TEST_F(Files, MakeDirectoriesIsMkdirP) {
  make_directories(path("x/y/z/"));
  make_directories(path("x/y"));
  EXPECT_TRUE(fs::is_directory(path("x/y/z")));
  write_file_atomically(path("file"), "");
  EXPECT_NE(error_of([&] { make_directories(path("file")); }).find(path("file")),
            std::string::npos);
  EXPECT_NE(error_of([&] { make_directories(path("file/z")); }).find("Not a directory"),
            std::string::npos);
}

// The examples of FIPS 180-2 appendix B and NIST's page of intermediate values.
constexpr const char* kAbc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
constexpr const char* kEmpty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
constexpr const char* kMillion = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

TEST(Sha256, EqualsTheStandardsExamples) {
  EXPECT_EQ(sha256_of_text(""), kEmpty);
  EXPECT_EQ(sha256_of_text("abc"), kAbc);
  EXPECT_EQ(sha256_of_text("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256_of_text(std::string(1000000, 'a')), kMillion);
}

TEST(Sha256, DoesNotDependOnThePieces) {
  for (const size_t piece : {1, 3, 55, 56, 63, 64, 65, 127, 1000}) {
    Sha256 hash;
    for (size_t left = 1000000; left > 0;) {
      const size_t bytes = std::min(left, piece);
      hash.update(std::string(bytes, 'a'));
      left -= bytes;
    }
    EXPECT_EQ(hash.hex(), kMillion) << piece;
  }
}

TEST_F(Files, HashOfAFileIsThatOfItsBytes) {
  write_file_atomically(path("abc"), "abc");
  write_file_atomically(path("empty"), "");
  EXPECT_EQ(sha256_of_file(path("abc")), kAbc);
  EXPECT_EQ(sha256_of_file(path("empty")), kEmpty);
  EXPECT_THROW(sha256_of_file(path("no")), Error);
}

}  // namespace
}  // namespace rep
