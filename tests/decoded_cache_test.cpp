// The cache of decoded images never changes what a data set gives, whatever lies in its folder and
// whoever else uses it.
#include "data/decoded_cache.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <opencv2/imgcodecs.hpp>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/files.h"
#include "data/augment.h"
#include "tests/image_sets.h"

namespace rep {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kImages = 6;
constexpr int64_t kHeader = 152;  // bytes before the pixels

/// One class of JPEG and PNG files of 40 x 56 pixels.
std::string image_set(const std::string& name) {
  const std::string root = fresh_folder(name);
  for (int64_t i = 0; i < kImages; ++i) {
    const Image image = picture(40, 56, static_cast<uint8_t>(i));
    const std::string stem = root + "/train/a/" + std::to_string(i);
    put(stem + ".png", image);
    if (i % 2 == 0) {
      cv::imwrite(stem + ".jpg", cv::imread(stem + ".png"));
      fs::remove(stem + ".png");
    }
  }
  return root;
}

std::unique_ptr<Dataset> open_cached(const std::string& root, const std::string& cache,
                                     const std::string& limit = "1GiB") {
  return open("{name: image_folder, root: " + root +
                  ", limit_train: 5, decoded_cache: {folder: " + cache + ", limit: " + limit + "}}",
              Split::kTrain);
}

/// Every image of the set, whole and in a training and a test view.
std::vector<std::vector<float>> seen(const Dataset& data) {
  std::vector<std::vector<float>> all;
  for (int64_t i = 0; i < data.size(); ++i) {
    const Image whole = data.image(i);
    all.emplace_back(whole.pixels.begin(), whole.pixels.end());
    for (const bool train : {true, false}) {
      const Transform transform("l2p", 24, normalisation("none"), train);
      ImagePart part;
      const View view = transform.fetch(data, i, Random({static_cast<uint64_t>(i)}), part);
      std::vector<float> input(3 * 24 * 24);
      transform.apply(part, view, input.data());
      all.push_back(input);
      // Parts give what the whole image does.
      std::vector<float> of_whole(3 * 24 * 24);
      transform.apply(whole, Random({static_cast<uint64_t>(i)}), of_whole.data());
      EXPECT_EQ(input, of_whole);
    }
  }
  return all;
}

std::vector<fs::path> cached(const std::string& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".rgb") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

void overwrite(const fs::path& path, int64_t offset, const std::string& bytes) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(offset);
  file << bytes;
}

TEST(DecodedCache, ChangesNothingColdOrWarm) {
  const std::string root = image_set("cache_same"), cache = fresh_folder("cache_same_files");
  const auto plain =
      open("{name: image_folder, root: " + root + ", limit_train: 5}", Split::kTrain);
  const auto data = open_cached(root, cache);
  const auto expected = seen(*plain);
  EXPECT_EQ(seen(*data), expected);
  EXPECT_EQ(cached(cache).size(), 5U);
  EXPECT_EQ(seen(*data), expected);
  EXPECT_EQ(seen(*open_cached(root, cache)), expected);
  EXPECT_EQ(data->fingerprint(), plain->fingerprint());
  for (const fs::path& path : cached(cache)) EXPECT_EQ(fs::file_size(path), kHeader + 40 * 56 * 3);
}

TEST(DecodedCache, IsReadWhenItIsWarm) {
  const std::string root = image_set("cache_used"), cache = fresh_folder("cache_used_files");
  const auto data = open_cached(root, cache);
  const Image before = data->image(0);
  ASSERT_EQ(cached(cache).size(), 1U);
  const auto changed = static_cast<uint8_t>(before.pixels[0] + 1);
  overwrite(cached(cache)[0], kHeader, std::string(1, static_cast<char>(changed)));
  EXPECT_EQ(data->image(0).pixels[0], changed);
}

TEST(DecodedCache, DecodesASourceThatChangedAnew) {
  const std::string root = image_set("cache_new"), cache = fresh_folder("cache_new_files");
  const auto data = open_cached(root, cache);
  seen(*data);
  const std::string path = root + "/train/a/1.png";
  const auto time = fs::last_write_time(path);
  put(path, picture(40, 56, 99));
  fs::last_write_time(path, time);  // as a copy that keeps times
  EXPECT_EQ(data->image(1).pixels, picture(40, 56, 99).pixels);
}

TEST(DecodedCache, KnowsAnImageByItsContent) {
  const std::string root = image_set("cache_content"), cache = fresh_folder("cache_content_files");
  const auto expected = seen(*open_cached(root, cache));
  ASSERT_EQ(cached(cache).size(), 5U);
  // The same images elsewhere, under other names and times.
  const std::string moved = fresh_folder("cache_content_moved");
  fs::copy(root, moved, fs::copy_options::recursive);
  fs::last_write_time(moved + "/train/a/1.png", fs::file_time_type::clock::now());
  EXPECT_EQ(seen(*open_cached(moved, cache)), expected);
  EXPECT_EQ(cached(cache).size(), 5U) << "nothing was decoded again";
}

TEST(DecodedCache, PassesOverWhatIsNotAsItMustBeAndWritesItAnew) {
  const std::string root = image_set("cache_bad"), cache = fresh_folder("cache_bad_files");
  const auto data = open_cached(root, cache);
  const auto expected = seen(*data);
  const std::string intact = read_file(cached(cache)[0].string());
  const std::string other = read_file(cached(cache)[1].string());
  std::vector<std::string> damages = {
      "",           "x",   intact.substr(0, kHeader),       intact.substr(0, intact.size() - 1),
      intact + "x", other, std::string(intact.size(), '\0')};
  for (size_t at = 0; at < static_cast<size_t>(kHeader); ++at) {
    damages.push_back(intact);
    damages.back()[at] = static_cast<char>(damages.back()[at] ^ 0x41);
  }
  for (const std::string& damage : damages) {
    std::ofstream(cached(cache)[0], std::ios::binary) << damage;
    EXPECT_EQ(seen(*data), expected);
    EXPECT_EQ(read_file(cached(cache)[0].string()), intact);
  }
  // Things that are no files: never waited for, never followed.
  const fs::path path = cached(cache)[0];
  fs::remove(path);
  fs::create_symlink("/dev/zero", path);
  EXPECT_EQ(seen(*data), expected);
  fs::remove(path);
  ASSERT_EQ(::mkfifo(path.c_str(), 0666), 0);
  EXPECT_EQ(seen(*data), expected);
}

TEST(DecodedCache, KeepsTheLimit) {
  const std::string root = image_set("cache_limit"), cache = fresh_folder("cache_limit_files");
  const int64_t one = kHeader + 40 * 56 * 3;
  const auto expected = seen(*open_cached(root, cache, std::to_string(3 * one)));
  EXPECT_EQ(cached(cache).size(), 3U);
  EXPECT_EQ(seen(*open_cached(root, cache, std::to_string(4 * one - 1))), expected);
  EXPECT_EQ(cached(cache).size(), 3U);
  std::ofstream(cache + "/lock") << "no number";
  EXPECT_EQ(seen(*open_cached(root, cache, std::to_string(4 * one))), expected);
  EXPECT_EQ(cached(cache).size(), 4U);
  fs::remove(cached(cache)[0]);
  EXPECT_EQ(seen(*open_cached(root, cache, std::to_string(4 * one))), expected);
  EXPECT_EQ(cached(cache).size(), 4U) << "what was removed makes room";
}

TEST(DecodedCache, IsSwitchedOffWithOneWarningWhenTheDiskIsFull) {
  const std::string root = image_set("cache_full"), cache = fresh_folder("cache_full_files");
  const auto expected =
      seen(*open("{name: image_folder, root: " + root + ", limit_train: 5}", Split::kTrain));
  const auto data = open_cached(root, cache);
  // No file may exceed 4,000 bytes: writing fails halfway, as on a full disk.
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit little{4000, before.rlim_max};
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  ::testing::internal::CaptureStderr();
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &little), 0);
  const auto first = seen(*data), second = seen(*data);
  ::setrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, handler);
  const std::string printed = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(first, expected);
  EXPECT_EQ(second, expected);
  EXPECT_EQ(printed.rfind("warning: dataset.decoded_cache gets no more images: ", 0), 0U)
      << printed;
  EXPECT_EQ(std::count(printed.begin(), printed.end(), '\n'), 1) << printed;
  for (const auto& entry : fs::directory_iterator(cache)) {
    EXPECT_EQ(entry.path().filename(), "lock") << "half a file was left";
  }
}

TEST(DecodedCache, MayBeSharedByProcesses) {
  const std::string root = image_set("cache_shared"), cache = fresh_folder("cache_shared_files");
  const auto expected =
      seen(*open("{name: image_folder, root: " + root + ", limit_train: 5}", Split::kTrain));
  const int64_t one = kHeader + 40 * 56 * 3;
  write_text(cache + "/old.rgb.1-0.tmp", "left by a process that died");
  std::vector<pid_t> children;
  for (int child = 0; child < 4; ++child) {
    children.push_back(::fork());
    if (children.back() != 0) continue;
    bool same = true;
    for (int round = 0; round < 15 && same; ++round) {
      same = seen(*open_cached(root, cache, std::to_string(4 * one))) == expected;
      // One of them keeps damaging what the others read and write.
      if (child == 0 && !cached(cache).empty()) {
        std::error_code gone;
        fs::resize_file(cached(cache)[0], 100, gone);
      }
    }
    ::_exit(same ? 0 : 1);
  }
  for (const pid_t child : children) {
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  EXPECT_EQ(seen(*open_cached(root, cache, std::to_string(4 * one))), expected);
  int64_t files = 0;
  for (const auto& entry : fs::directory_iterator(cache)) {
    if (entry.path().filename() == "lock") continue;
    EXPECT_EQ(entry.file_size(), one) << entry.path();
    ++files;
  }
  EXPECT_EQ(files, 4);
}

TEST(DecodedCache, SaysWhatIsWrongWithItsOptions) {
  const std::string root = image_set("cache_options");
  const auto message = [&](const std::string& cache) {
    return message_of("{name: image_folder, root: " + root + ", decoded_cache: " + cache + "}",
                      Split::kTrain);
  };
  EXPECT_NE(message("{folder: x, limit: 4 apples}").find("dataset.decoded_cache.limit"),
            std::string::npos);
  EXPECT_NE(message("{folder: /proc/nowhere}").find("/proc/nowhere"), std::string::npos);
  EXPECT_EQ(message("{}"), "");
}

}  // namespace
}  // namespace rep
