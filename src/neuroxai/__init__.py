"""NeuroXAI explains deep networks that read brain MRI. Research software, not for clinical use."""
