// Data sets of image files, from fixtures in their official layouts that the tests make.
#include "data/image_files.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <set>

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
  EXPECT_NE(message_of(yaml, Split::kTest).find("test/b/"), std::string::npos);
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
