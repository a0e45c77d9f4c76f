"""What every scenario of ivmm-bench stands on."""
