// Data sets of image files, from fixtures in their official layouts that the tests make.
#include "data/image_files.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <optional>
#include <set>

#include "core/files.h"
#include "core/hash.h"
#include "data/content_digests.h"
#include "tests/golden.h"
#include "tests/image_sets.h"

namespace rep {
namespace {

TEST(ImageFolder, TakesClassesFromFoldersInSortedOrder) {
  const std::string root = fresh_folder("image_folder");
  put(root + "/train/zebra/b.png", picture(4, 4, 1));
  put(root + "/train/zebra/a.png", picture(4, 4, 2));
  put(root + "/train/ant/deep/er/c.PNG", picture(4, 4, 3));
  write_text(root + "/train/ant/notes.txt", "not an image");
  put(root + "/test/zebra/d.png");
  std::filesystem::create_directories(root + "/test/ant");
  const std::string yaml = "{name: image_folder, root: " + root + "}";
  const auto train = open(yaml, Split::kTrain), test = open(yaml, Split::kTest);
  EXPECT_EQ(train->class_names(), (std::vector<std::string>{"ant", "zebra"}));
  EXPECT_EQ(train->labels(), (std::vector<int64_t>{0, 1, 1}));
  EXPECT_EQ(train->image(1).pixels, picture(4, 4, 2).pixels);
  EXPECT_EQ(test->labels(), (std::vector<int64_t>{1}));
  EXPECT_NE(train->fingerprint(), test->fingerprint());
  EXPECT_EQ(train->fingerprint(), open(yaml, Split::kTrain)->fingerprint());
}

TEST(ImageFolder, SplitsOffAFixedShareOfEveryClass) {
  const std::string root = fresh_folder("image_share");
  for (int i = 0; i < 20; ++i) {
    put(root + "/a/" + std::to_string(100 + i) + ".png", picture(3, 3, static_cast<uint8_t>(i)));
    put(root + "/b/" + std::to_string(100 + i) + ".png",
        picture(3, 3, static_cast<uint8_t>(i + 50)));
  }
  const std::string yaml = "{name: image_folder, root: " + root + ", test_share: 0.2}";
  const auto train = open(yaml, Split::kTrain), test = open(yaml, Split::kTest);
  EXPECT_EQ(train->size(), 32);
  EXPECT_EQ(test->size(), 8);
  std::set<std::vector<uint8_t>> seen;
  for (const Dataset* data : {train.get(), test.get()}) {
    for (int64_t i = 0; i < data->size(); ++i) seen.insert(data->image(i).pixels);
  }
  EXPECT_EQ(seen.size(), 40U) << "no image in both halves, none lost";
  const std::string other =
      "{name: image_folder, root: " + root + ", test_share: 0.2, split_seed: 1}";
  EXPECT_NE(open(other, Split::kTest)->fingerprint(), test->fingerprint());
}

TEST(ImageFolder, ReadsTinyImageNetsAnnotations) {
  const std::string root = fresh_folder("tiny_imagenet");
  for (const char* name : {"n1", "n2"}) put(root + "/train/" + name + "/images/x.JPEG.png");
  put(root + "/val/images/v0.png", picture(2, 2, 7));
  put(root + "/val/images/v1.png", picture(2, 2, 8));
  write_text(root + "/val/val_annotations.txt", "v0.png\tn2\t0\t0\t1\t1\nv1.png\tn1\t0\t0\t1\t1\n");
  const std::string yaml = "{name: image_folder, root: " + root + ", test: val}";
  const auto test = open(yaml, Split::kTest);
  EXPECT_EQ(test->labels(), (std::vector<int64_t>{1, 0}));
  EXPECT_EQ(test->image(0).pixels, picture(2, 2, 7).pixels);
  write_text(root + "/val/val_annotations.txt", "v0.png\tn9\t0\t0\t1\t1\n");
  EXPECT_NE(message_of(yaml, Split::kTest).find("val_annotations.txt:1: 'n9'"), std::string::npos);
}

/// Four classes with images of their own in both splits.
std::string four_classes(const std::string& name, const std::string& ending = ".png") {
  const std::string root = fresh_folder(name);
  uint8_t seed = 0;
  for (const char* split : {"train", "test"}) {
    for (const char* c : {"ant", "bee", "cat", "dog"}) {
      for (int i = 0; i < 3; ++i) {
        const std::string path = root + "/" + split + "/" + c + "/" + std::to_string(i);
        put(path + ".png", picture(6, 5, ++seed));
        if (ending == ".png") continue;
        cv::imwrite(path + ending, cv::imread(path + ".png"));
        std::filesystem::remove(path + ".png");
      }
    }
  }
  return root;
}

std::string folder_yaml(const std::string& root) {
  return "{name: image_folder, root: " + root + "}";
}

std::string only_note(const Dataset& data) {
  const std::vector<std::string> notes = data.notes();
  return notes.size() == 1 ? notes[0] : std::to_string(notes.size()) + " notes";
}

TEST(ImageFolder, KeepsATestImageOfEveryClassHoweverSmallTheShare) {
  const std::string root = fresh_folder("small_classes");
  for (int i = 0; i < 20; ++i) {
    put(root + "/many/" + std::to_string(i) + ".png", picture(3, 3, static_cast<uint8_t>(i)));
    if (i < 4) put(root + "/four/" + std::to_string(i) + ".png");
    if (i < 2) put(root + "/two/" + std::to_string(i) + ".png");
  }
  const std::string yaml = "{name: image_folder, root: " + root + ", test_share: 0.2}";
  EXPECT_EQ(open(yaml, Split::kTest)->labels(), (std::vector<int64_t>{0, 1, 1, 1, 1, 2}));
  EXPECT_EQ(open(yaml, Split::kTrain)->size(), 3 + 16 + 1);
}

TEST(ImageFolder, FollowsLinksToFilesAndFolders) {
  const std::string root = four_classes("links"), store = fresh_folder("links_store");
  for (int i = 0; i < 5; ++i) {
    put(store + "/deep/" + std::to_string(i) + ".png", picture(4, 4, static_cast<uint8_t>(99 + i)));
  }
  std::filesystem::create_symlink("../../../rep_links_store", root + "/train/bee/more");
  std::filesystem::create_symlink(store + "/deep/0.png", root + "/train/cat/linked.png");
  std::filesystem::create_directory_symlink(store + "/deep", root + "/train/eel");
  std::filesystem::create_directory_symlink(store + "/deep", root + "/test/eel");
  const auto train = open(folder_yaml(root), Split::kTrain);
  EXPECT_EQ(train->labels(), (std::vector<int64_t>{0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2,
                                                   2, 2, 2, 3, 3, 3, 4, 4, 4, 4, 4}));
  EXPECT_EQ(train->image(6).pixels, picture(4, 4, 99).pixels) << "bee/more/deep/0.png";
  EXPECT_EQ(train->image(14).pixels, picture(4, 4, 99).pixels) << "cat/linked.png";
  EXPECT_TRUE(train->notes().empty());
}

TEST(ImageFolder, EndsAtLinksThatLeadRoundAndSaysSo) {
  const std::string root = four_classes("loops");
  std::filesystem::create_directory_symlink("..", root + "/train/ant/up");
  std::filesystem::create_directory_symlink(".", root + "/train/bee/same");
  std::filesystem::create_directory_symlink("../train", root + "/train/zoo");
  const auto train = open(folder_yaml(root), Split::kTrain);
  EXPECT_EQ(train->class_names(), (std::vector<std::string>{"ant", "bee", "cat", "dog"}));
  EXPECT_EQ(train->size(), 12);
  EXPECT_EQ(only_note(*train), root +
                                   ": not read: links to folders that are read anyway: 3 "
                                   "(train/zoo, ...)");
}

TEST(ImageFolder, RefusesDeadLinksWithTheirPath) {
  for (const char* where : {"/train/dog/dead.png", "/train/dog/folder", "/train/eel"}) {
    const std::string root = four_classes("dead");
    std::filesystem::create_symlink("nowhere", root + where);
    EXPECT_EQ(message_of(folder_yaml(root), Split::kTrain),
              root + where +
                  ": a link to 'nowhere', which cannot be followed; put it right or "
                  "remove it");
  }
  const std::string root = four_classes("dead_circle");
  std::filesystem::create_symlink("b", root + "/train/dog/a");
  std::filesystem::create_symlink("a", root + "/train/dog/b");
  EXPECT_NE(message_of(folder_yaml(root), Split::kTrain).find("dog/a: a link to 'b'"),
            std::string::npos);
}

TEST(ImageFolder, HasNoHiddenClassesAndNoHiddenImages) {
  const std::string root = four_classes("hidden");
  for (const char* split : {"train", "test"}) {
    for (const char* name : {".ipynb_checkpoints", "@eaDir", ".git", "__MACOSX"}) {
      put(root + "/" + split + "/" + name + "/0.png");
    }
  }
  put(root + "/train/ant/.ipynb_checkpoints/0-checkpoint.png");
  put(root + "/train/ant/._0.png");
  const auto train = open(folder_yaml(root), Split::kTrain);
  EXPECT_EQ(train->class_names(), (std::vector<std::string>{"ant", "bee", "cat", "dog"}));
  EXPECT_EQ(train->size(), 12);
  const std::string note = only_note(*train);
  EXPECT_NE(note.find("not read: hidden files and folders: 6 (train/"), std::string::npos) << note;
}

TEST(ImageFolder, ReadsEveryFormatAndCountsWhatItLeavesOut) {
  const std::string root = four_classes("endings");
  cv::Mat pixels(9, 9, CV_8UC3, cv::Scalar(10, 20, 30));
  for (const char* ending : {".tif", ".ppm", ".jp2", ".webp"}) {
    cv::imwrite(root + "/train/ant/other" + ending, cv::Mat(64, 64, CV_8UC3, cv::Scalar::all(9)));
  }
  cv::imwrite(root + "/train/ant/x.jpg", pixels);
  std::filesystem::rename(root + "/train/ant/x.jpg", root + "/train/ant/x.jfif");
  write_text(root + "/train/ant/notes.txt", "not an image");
  write_text(root + "/train/bee/README", "nor is this");
  write_text(root + "/train/bee/a.exr", "");
  write_text(root + "/train/bee/b.exr", "");
  put(root + "/train/stray.png");
  const auto train = open(folder_yaml(root), Split::kTrain);
  EXPECT_EQ(train->size(), 12 + 5);
  EXPECT_EQ(train->image(train->size() - 9 - 1).pixels.size(), 9U * 9 * 3) << "x.jfif";
  EXPECT_EQ(only_note(*train),
            root +
                ": not read: .exr files: 2 (train/bee/a.exr, ...); .txt files: 1 "
                "(train/ant/notes.txt); files without an ending: 1 (train/bee/README); images "
                "outside of the classes' folders: 1 (train/stray.png)");
}

TEST(ImageFolder, SaysWhichTestClassesItDoesNotKnow) {
  const std::string root = four_classes("unknown");
  put(root + "/test/emu/0.png");
  EXPECT_EQ(only_note(*open(folder_yaml(root), Split::kTest)),
            root + ": not read: folders that are not classes of the training images: 1 (test/emu)");
}

TEST(ImageFolder, RefusesAClassThatNoResultCouldName) {
  const std::string root = four_classes("latin1");
  for (const char* split : {"/train/", "/test/"}) {
    std::filesystem::rename(root + split + "cat", root + split + "caf\xE9");
  }
  EXPECT_EQ(message_of(folder_yaml(root), Split::kTrain),
            "dataset: the class 'caf\\xE9' is not named in UTF-8, so that no result can hold its "
            "name; rename it (convmv -f latin1 -t utf8 does that for whole folders)");
  // Files may be named as they like; messages escape them.
  const std::string files = four_classes("latin1_files");
  write_text(files + "/train/ant/caf\xE9.png", "<html>");
  const std::string message = message_of(folder_yaml(files), Split::kTrain);
  EXPECT_NE(message.find("ant/caf\\xE9.png: not a whole image"), std::string::npos) << message;
}

TEST(ImageFolder, TurnsByExifOrNotForEveryFormatAndWithACache) {
  const std::string root = fresh_folder("turned"), cache = fresh_folder("turned_cache");
  put(root + "/train/a/0.png", picture(20, 30, 1));
  cv::imwrite(root + "/train/a/0.jpg", cv::imread(root + "/train/a/0.png"));
  std::filesystem::remove(root + "/train/a/0.png");
  std::string jpeg = read_file(root + "/train/a/0.jpg");
  // APP1: a big-endian TIFF structure whose one entry says 6, a quarter turn clockwise.
  jpeg.insert(2, std::string("\xFF\xE1\0\x22"
                             "Exif\0\0MM\0\x2A\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"
                             "\0\0\0\0",
                             36));
  std::ofstream(root + "/train/a/0.jpg", std::ios::binary) << jpeg;
  const std::string yaml = "{name: image_folder, root: " + root +
                           ", decoded_cache: {folder: " + cache + "}, exif_orientation: ";
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(open(yaml + "apply}", Split::kTrain)->image(0).height, 30);
    EXPECT_EQ(open(yaml + "ignore}", Split::kTrain)->image(0).height, 20);
  }
  EXPECT_EQ(open(folder_yaml(root), Split::kTrain)->image(0).height, 30) << "the default";
}

TEST(ImageFiles, FingerprintIsOfContents) {
  const std::string a = four_classes("print_a", ".bmp"), b = four_classes("print_b", ".bmp");
  const auto print = [](const std::string& root, const std::string& more = "") {
    return open("{name: image_folder, root: " + root + more + "}", Split::kTrain)->fingerprint();
  };
  EXPECT_EQ(print(a), print(b)) << "the folder's place does not matter";
  const std::string path = b + "/train/dog/2.bmp";
  const auto size = std::filesystem::file_size(path);
  const auto time = std::filesystem::last_write_time(path);
  const std::string before = read_file(path);
  std::string other = before;
  other.back() = static_cast<char>(other.back() ^ 1);
  write_text(path, other);
  std::filesystem::last_write_time(path, time);
  ASSERT_EQ(std::filesystem::file_size(path), size);
  EXPECT_NE(print(a), print(b)) << "one byte, at the same name, size and time";
  EXPECT_EQ(print(a, ", limit_train: 2"), print(b, ", limit_train: 2")) << "the image is not used";
  EXPECT_NE(print(a), print(a, ", limit_train: 2"));
  write_text(path, before);
  EXPECT_EQ(print(a), print(b));
  for (const char* split : {"/train/", "/test/"}) {
    std::filesystem::rename(b + split + "cat", b + split + "cow");
  }
  EXPECT_NE(print(a), print(b)) << "a class was renamed";
}

TEST(ImageFiles, FingerprintChangesWithTheListAndWithImagesAdded) {
  const std::string root = four_classes("print_list"), list = root + "/list.txt";
  const std::string yaml = "{name: image_folder, root: " + root + ", train_list: " + list + "}";
  const auto print = [&](const std::string& lines) {
    write_text(list, lines);
    return open(yaml, Split::kTrain)->fingerprint();
  };
  const std::string whole = print("train/ant/0.png 0\ntrain/bee/0.png 1\n");
  EXPECT_NE(print("train/ant/0.png 0\ntrain/bee/0.png 2\n"), whole);
  EXPECT_NE(print("train/ant/0.png 0\ntrain/bee/1.png 1\n"), whole);
  EXPECT_NE(print("train/bee/0.png 1\ntrain/ant/0.png 0\n"), whole);
  EXPECT_EQ(print("train/ant/0.png 0\r\n\ntrain/bee/0.png 1\n"), whole);
  const std::string before = open(folder_yaml(root), Split::kTrain)->fingerprint();
  put(root + "/train/ant/more.png");
  EXPECT_NE(open(folder_yaml(root), Split::kTrain)->fingerprint(), before);
}

/// The file in which a ContentDigests keeps what it knows.
std::string kept_in(const std::string& cache) {
  for (const auto& entry : std::filesystem::recursive_directory_iterator(cache)) {
    if (entry.is_regular_file()) return entry.path().string();
  }
  return "";
}

TEST(ContentDigests, AreKeptForFilesThatHaveNotChanged) {
  const std::string cache = fresh_folder("digests"), root = REP_SOURCE_DIR "/tests/fixtures";
  ASSERT_EQ(::setenv("XDG_CACHE_HOME", cache.c_str(), 1), 0);
  const std::string name = "plain.pth", digest = sha256_of_file(root + "/" + name);
  EXPECT_EQ(ContentDigests(root).of_all({name, "missing"}),
            (std::vector<std::optional<std::string>>{digest, std::nullopt}));
  const std::string file = kept_in(cache);
  ASSERT_NE(file, "");
  const std::string kept = read_file(file);
  const auto with = [&](const std::string& from, const std::string& to, bool seal) {
    std::string text = kept.substr(0, kept.size() - 64);
    text.replace(text.find(from), from.size(), to);
    write_text(file, text + (seal ? sha256_of_text(text) : kept.substr(kept.size() - 64)));
    return ContentDigests(root).of(name);
  };
  const std::string wrong(64, 'f');
  EXPECT_EQ(with(digest, wrong, true), wrong) << "what is kept is used";
  EXPECT_EQ(with(digest, wrong, false), digest) << "but not when it is damaged";
  const std::string size = " " + std::to_string(std::filesystem::file_size(root + "/" + name));
  EXPECT_EQ(with(digest + size, wrong + " 7", true), digest) << "nor for another file";
  write_text(file, "");
  EXPECT_EQ(ContentDigests(root).of(name), digest);
  ::unsetenv("XDG_CACHE_HOME");
}

TEST(ContentDigests, DoNotTrustTimesOfAFileThatChangedJustNow) {
  const std::string cache = fresh_folder("digests_new"), root = fresh_folder("digests_new_files");
  ASSERT_EQ(::setenv("XDG_CACHE_HOME", cache.c_str(), 1), 0);
  write_text(root + "/a", "one");
  ContentDigests digests(root);
  EXPECT_EQ(digests.of_all({"a"})[0], sha256_of_text("one"));
  EXPECT_EQ(kept_in(cache), "");
  const auto time = std::filesystem::last_write_time(root + "/a");
  write_text(root + "/a", "two");
  std::filesystem::last_write_time(root + "/a", time);
  EXPECT_EQ(digests.of("a"), sha256_of_text("two"));
  ::unsetenv("XDG_CACHE_HOME");
}

TEST(ImageFiles, GivesPartsOfABoxAsOfTheWholeImage) {
  const std::string root = fresh_folder("image_boxes");
  put(root + "/a.png", picture(70, 90, 3));
  cv::imwrite(root + "/a.jpg", cv::imread(root + "/a.png"));
  const Region box{9, 21, 50, 47};
  for (const char* file : {"a.png", "a.jpg"}) {
    const ImageFiles files(root, {{file, 0, box, false}}, {"only"}, "list");
    cv::Mat rgb;
    cv::cvtColor(cv::imread(root + "/" + file), rgb, cv::COLOR_BGR2RGB);
    const cv::Mat boxed = rgb(cv::Rect(21, 9, 47, 50)).clone();
    EXPECT_EQ(files.image(0).pixels, std::vector<uint8_t>(boxed.datastart, boxed.dataend));
    for (const Region& wanted : {Region{0, 0, 50, 47}, Region{49, 46, 1, 1}, Region{3, 30, 8, 9}}) {
      ImagePart part;
      const auto take = [&](int64_t height, int64_t width) {
        EXPECT_EQ(height, 50);
        EXPECT_EQ(width, 47);
        return wanted;
      };
      files.part(0, take, part);
      const Region found{wanted.top - part.top, wanted.left - part.left, wanted.height,
                         wanted.width};
      const cv::Mat expected =
          boxed(cv::Rect(static_cast<int>(wanted.left), static_cast<int>(wanted.top),
                         static_cast<int>(wanted.width), static_cast<int>(wanted.height)))
              .clone();
      EXPECT_EQ(cut_out(part.pixels, found).pixels,
                std::vector<uint8_t>(expected.datastart, expected.dataend));
    }
  }
}

TEST(ImageFolder, SaysWhatIsMissing) {
  const std::string root = fresh_folder("image_missing");
  put(root + "/train/a/x.png");
  put(root + "/train/b/x.png");
  put(root + "/test/a/x.png");
  const std::string yaml = "{name: image_folder, root: " + root + "}";
  EXPECT_NE(message_of(yaml, Split::kTest).find("test/b: not there"), std::string::npos);
  EXPECT_NE(message_of("{name: image_folder, root: /nowhere}", Split::kTrain).find("/nowhere"),
            std::string::npos);
  write_text(root + "/train/a/x.png", "not a picture");
  const std::string message = message_of(yaml, Split::kTrain);
  EXPECT_NE(message.find("train/a/x.png"), std::string::npos) << message;
}

TEST(ImageList, RefusesPathsThatLeaveTheRootAndLabelsBeyondTheClasses) {
  const std::string root = fresh_folder("image_list");
  put(root + "/train/a/x.png");
  put(root + "/train/b/y z.png");
  const std::string list = root + "/list.txt";
  const std::string yaml = "{name: image_folder, root: " + root + ", train_list: " + list + "}";
  write_text(list, "train/a/x.png 0\r\n\ntrain/b/y z.png 1\n");
  EXPECT_EQ(open(yaml, Split::kTrain)->labels(), (std::vector<int64_t>{0, 1}));
  for (const char* bad :
       {"../x.png 0\n", "/etc/passwd 0\n", "train/../../x.png 1\n", "train/a/x.png 2\n",
        "train/a/x.png -1\n", "train/a/x.png\n", " 0\n", "train/a/x.png 99999999999999999999\n"}) {
    write_text(list, bad);
    EXPECT_NE(message_of(yaml, Split::kTrain), "") << bad;
  }
}

TEST(ImageList, NamesItsPathsFromTheRootOnAndInBytesThatCanBeRead) {
  const std::string root = fresh_folder("image_list_latin1");
  put(root + "/train/a/x.png");
  const std::string relative =
      std::filesystem::relative(root, std::filesystem::current_path()).string();
  write_text(root + "/list.txt", "../caf\xE9.png 0\n");
  const std::string yaml = "{name: image_folder, root: " + relative + ", train_list: ";
  EXPECT_EQ(message_of(yaml + relative + "/list.txt}", Split::kTrain),
            root +
                "/list.txt: the path '../caf\\xE9.png' leads out of the data set's folder; paths "
                "are relative to it, without '..'");
  write_text(root + "/list.txt", "caf\xE9 x\n");
  EXPECT_EQ(message_of(yaml + relative + "/list.txt}", Split::kTrain),
            root + "/list.txt:1: 'caf\\xE9 x' is not a path and a label from 0 to 0");
  EXPECT_EQ(message_of("{name: image_folder, root: " + relative + "/none}", Split::kTrain)
                .rfind(root + "/none/train: not a folder", 0),
            0U);
}

TEST(ImageNetSubset, HasTwoDefinitionsAndWhateverIsPresent) {
  const std::string root = fresh_folder("imagenet");
  for (const char* half : {"train", "val"}) {
    put(root + "/" + half + "/n01440764/a.png");
    put(root + "/" + half + "/n02102040/a.png");
  }
  const std::string yaml = "{name: imagenet_subset, root: " + root;
  const auto present = open(yaml + ", definition: present}", Split::kTest);
  EXPECT_EQ(present->class_names(), (std::vector<std::string>{"n01440764", "n02102040"}));
  EXPECT_EQ(present->size(), 2);
  const std::string first = message_of(yaml + "}", Split::kTrain);
  EXPECT_NE(first.find("n01443537"), std::string::npos) << first;  // the second of ImageNet-1k
  const std::string lucir = message_of(yaml + ", definition: lucir1993}", Split::kTrain);
  EXPECT_NE(lucir.find("n01514668"), std::string::npos) << lucir;
}

TEST(ImageNetSubset, ReadsRealPhotographs) {
  SKIP_WITHOUT_SHARED("data/imagenet-subset/train");
  const std::string yaml =
      "{name: imagenet_subset, definition: present, root: " REP_SHARED_DIR "/data/imagenet-subset}";
  const auto train = open(yaml, Split::kTrain), test = open(yaml, Split::kTest);
  EXPECT_EQ(train->num_classes(), 10);
  EXPECT_EQ(train->size(), 240);
  EXPECT_EQ(test->size(), 60);
  for (int64_t i = 0; i < train->size(); i += 7) {
    const Image image = train->image(i);
    EXPECT_EQ(image.height, 224);
    EXPECT_EQ(image.width, 224);
  }
}

}  // namespace
}  // namespace rep
