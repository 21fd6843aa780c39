#include "run/confusion.h"

#include <map>

namespace rep {

void Confusion::add(const Task& task, const std::vector<int64_t>& predicted) {
  for (size_t i = 0; i < predicted.size(); ++i) {
    const int64_t label = task.test.at(i).label;
    ++images_[label][predicted[i]];
  }
}

Json Confusion::to_json(const Stream& stream, const std::vector<std::string>& names, int64_t after,
                        int64_t seen) const {
  std::map<int64_t, int64_t> brought_by;  // class -> the first task that has it
  for (const Task& task : stream.tasks) {
    for (const int64_t id : task.classes) brought_by.emplace(id, task.index);
  }
  Json classes = Json::array();
  for (int64_t label = 0; label < seen; ++label) {
    const int64_t id = stream.class_order.at(static_cast<size_t>(label));
    Json line{{"class", id}, {"name", names.at(static_cast<size_t>(id))}};
    const auto task = brought_by.find(id);
    line["task"] = task == brought_by.end() ? Json(nullptr) : Json(task->second);
    int64_t images = 0, correct = 0;
    Json predicted = Json::object();
    if (const auto row = images_.find(label); row != images_.end()) {
      for (const auto& [taken_for, count] : row->second) {
        images += count;
        if (taken_for == label) correct = count;
        predicted[std::to_string(taken_for)] = count;
      }
    }
    line["images"] = images;
    line["correct"] = correct;
    line["predicted"] = std::move(predicted);
    classes.push_back(std::move(line));
  }
  return {{"after_task", after}, {"classes", std::move(classes)}};
}

}  // namespace rep
