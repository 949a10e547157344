"""Segmenters learn: how wrong the answer for each pixel is, what pictures and masks they see, and for how long.

settings   how, as data
losses     how wrong the pixels are
moves      pictures changed together with their masks
stream     the batches of an epoch: whole pictures, or cut-outs of large ones
scores     mean IoU between epochs
distil     a teacher's pixels beside the true ones
classes    a segmenter for other classes
train      the training
"""
