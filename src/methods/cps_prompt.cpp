// CPS-Prompt: critical patch sampling and decoupled training (CVPR 2026, arXiv 2604.07399). The
// idea in three lines: CODA-Prompt whose training steps see a part of each image's patches, drawn
// by what the query pass attends to (nn/patch_sampling.h); as tests see whole images, the last
// epochs of a task train the head alone on features of those (train.decoupled); memory and time of
// training fall. A name for `coda_prompt` with these defaults: any other method can have both, too.
// Differs from the authors' code (laymond1/cps-prompt 7ec2be1): see nn/patch_sampling.cpp.
#include "methods/method.h"

namespace rep {

namespace {

const MethodKind& coda_prompt() { return Registry<MethodKind>::get().at("coda_prompt").value; }

const Registered<MethodKind> kCpsPrompt{
    "cps_prompt",
    "CPS-Prompt 2026: coda_prompt with token_merging cps and train.decoupled (arXiv 2604.07399)",
    {[](const MethodContext& context) { return coda_prompt().make(context); },
     [](const Section& section) { return coda_prompt().options(section); },
     [] { return coda_prompt().describe(); }}};

const Registered<MethodDefaults> kDefaults{"cps_prompt", "", {R"(
efficiency: {token_merging: {kind: cps, ratio: 0.4, temperature: 0.1}}
train: {optimizer: {lr: 0.001}, schedule: coda_no_lag, decoupled: {phase_ratio: 0.4}}
)"}};

}  // namespace

}  // namespace rep
