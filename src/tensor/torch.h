#pragma once

// The part of LibTorch's interface that this program is written in. <torch/torch.h> holds all of it
// (data loaders, the compiler, every module), which every source file would pay seconds for.
#include <torch/autograd.h>
#include <torch/cuda.h>
#include <torch/nn/functional/normalization.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/types.h>
#include <torch/utils.h>
