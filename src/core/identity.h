#pragma once

#include <string>

#include "core/config.h"
#include "core/json.h"

namespace rep {

/// What makes a run the run it is: every field that is not marked otherwise where it is visited,
/// options of data set and method included, and under "inputs" the digests of what paths lead to
/// (run/inputs.h). An option that is written at its default is one that is left out. The key of a
/// sweep's run, a report's rows and scripts/plot.py go by this and nothing else; a resume, by the
/// threads, the processes and the kind of device too (RunFolder).
Json identity(const Config& config, const Json& inputs = Json::object());
/// The identity of that data set and method with every option at its default, without their names.
/// Defaults are those of the structs, whatever a method's name stands for besides (MethodDefaults).
Json identity_of_defaults(const Config& config);
/// `identity` without what is as in `defaults`: what a key is made of, so that an option that is
/// new moves no key of a run that leaves it at its default.
Json without_defaults(const Json& identity, const Json& defaults);
/// What another build wrote as an identity, as this build says it: an option that it did not have
/// is at its default, which whoever adds one makes what was done before, and what is no part of an
/// identity any more is left out. Of another data set or method than `config` has nothing is known.
Json as_of_this_build(const Json& identity, const Config& config);
/// "train.epochs was 5 and is 6": the first difference between two identities; "" for none.
std::string first_difference(const Json& was, const Json& is, const std::string& path = "");

}  // namespace rep
