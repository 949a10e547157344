"""Detectors learn: what a row of their output is told to say, what pictures and boxes they see, and for how long.

anchors    anchors fitted to the boxes of the data
geometry   rows → boxes, and how much boxes have in common, as tensors
assign     which row answers for which true box
losses     how wrong the rows are
moves      pictures changed together with their boxes
stream     the batches of an epoch
scores     a quick look at AP50 between epochs
distil     a teacher's rows beside the true boxes
train      the training
"""
